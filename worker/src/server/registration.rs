//! Joining the scheduler.

use std::time::Duration;

use dask_protocol::comm::Comm;
use dask_protocol::message::{
    Message, RESUME_EXTRA, RUNTIMES_EXTRA, RegisterWorker, RegisterWorkerReply, WorkerStatus,
};
use dask_protocol::{Address, CommError, Value};
use serde::Serialize;
use tokio::time::Instant;
use tracing::{info, warn};

use super::StartError;
use super::heartbeat;
use super::shared::{Shared, stimulus};
use crate::clock::unix_now;
use crate::options::WorkerOptions;

/// Pause between attempts to reach the scheduler.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

#[derive(Serialize)]
struct Request<'a> {
    op: &'static str,
    reply: bool,
    #[serde(flatten)]
    body: &'a RegisterWorker,
}

/// Connects and registers; the connection becomes the worker's stream.
///
/// # Errors
/// [`StartError::Refused`] when the scheduler says no, [`StartError::Scheduler`] when it cannot be reached within
/// `death_timeout` or never will be.
pub(crate) async fn register(
    shared: &Shared,
    options: &WorkerOptions,
    dashboard_port: Option<u16>,
) -> Result<(Comm, RegisterWorkerReply), StartError> {
    let death_timeout = options.death_timeout;
    let deadline = death_timeout.map(|limit| Instant::now() + limit);
    let scheduler = &shared.identity.scheduler;
    loop {
        let attempt = attempt(shared, options, dashboard_port);
        let outcome = match deadline {
            None => attempt.await,
            Some(deadline) => tokio::time::timeout_at(deadline, attempt).await.unwrap_or_else(|_| {
                Err(CommError::Timeout {
                    what: format!("registration with {scheduler}"),
                    seconds: death_timeout.unwrap_or_default().as_secs_f64(),
                })
            }),
        };
        let expired = deadline.is_some_and(|deadline| Instant::now() >= deadline);
        match outcome {
            Ok((comm, reply)) => return accepted(shared, comm, reply),
            Err(error) if expired || !worth_retrying(&error) => {
                return Err(StartError::Scheduler { scheduler: scheduler.clone(), error });
            }
            Err(_) => {
                info!(target: "distributed.worker", "Waiting to connect to: {:>26}", scheduler.as_str());
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        }
    }
}

fn accepted(
    shared: &Shared,
    comm: Comm,
    reply: RegisterWorkerReply,
) -> Result<(Comm, RegisterWorkerReply), StartError> {
    if !reply.warning.is_empty() {
        warn!(target: "distributed.worker", "{}", reply.warning);
    }
    if reply.status == "OK" {
        return Ok((comm, reply));
    }
    let reason = reply.message.unwrap_or(reply.error);
    Err(StartError::Refused { scheduler: shared.identity.scheduler.clone(), reason })
}

async fn attempt(
    shared: &Shared,
    options: &WorkerOptions,
    dashboard_port: Option<u16>,
) -> Result<(Comm, RegisterWorkerReply), CommError> {
    let identity = &shared.identity;
    let mut comm = Comm::connect(&identity.scheduler, &options.comm).await?;
    let sent = unix_now();
    let services = dashboard_port.map(|port| ("dashboard", Value::from(i64::from(port))));
    let runtimes: Vec<Value> =
        std::iter::once("native").chain(shared.python().map(|_| "python")).map(Value::from).collect();
    let grace = Some(options.reconnect_grace).filter(|grace| !grace.is_zero());
    let grace = grace.map(|grace| (RESUME_EXTRA, grace.as_secs_f64().into()));
    let body = RegisterWorker {
        address: identity.address.clone(),
        status: WorkerStatus::Init,
        nthreads: identity.nthreads,
        name: identity.name.clone(),
        now: Some(sent),
        resources: Some(options.resources.clone()),
        memory_limit: identity.memory_limit,
        local_directory: identity.local_directory.display().to_string(),
        services: Value::map(services),
        nanny: identity.nanny.clone(),
        pid: i64::from(std::process::id()),
        versions: shared.versions.clone(),
        metrics: heartbeat::metrics(shared, Value::Map(Vec::new())),
        extra: Value::map([(RUNTIMES_EXTRA, Value::Array(runtimes))].into_iter().chain(grace)),
        stimulus_id: Some(stimulus("worker-connect")),
        server_id: identity.id.clone(),
        resolve_address: None,
    };
    comm.send(&Message::encode(&Request { op: "register-worker", reply: false, body: &body })?).await?;
    let message = comm.recv().await?;
    dask_protocol::comm::pool::check_reply("register-worker", &identity.scheduler, &message)?;
    let reply: RegisterWorkerReply = message.decode()?;
    if reply.time > 0.0 {
        shared.clock.observe(reply.time, sent, unix_now());
    }
    Ok((comm, reply))
}

/// Whether waiting may help: a scheduler that is not there yet, or went away in between.
fn worth_retrying(error: &CommError) -> bool {
    match error {
        CommError::Closed { .. } | CommError::Connect { .. } | CommError::Io(_) | CommError::Timeout { .. } => true,
        CommError::Address { .. }
        | CommError::Decode(_)
        | CommError::Handshake { .. }
        | CommError::Tls(_)
        | CommError::Encode(_)
        | CommError::Remote { .. } => false,
    }
}

/// The name to register under: the given one, or the address.
pub(crate) fn name_or_address(name: &Value, address: &Address) -> Value {
    if name.is_nil() { Value::from(address.as_str()) } else { name.clone() }
}
