//! What a nanny tells the scheduler.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::event::Exit;
use dask_protocol::comm::{Comm, ConnectionPool};
use dask_protocol::message::Pairs;
use dask_protocol::{Address, CommError, Value};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;
use tracing::{debug, warn};

/// How long the scheduler may take to note that a worker is gone, as upstream; the next worker waits for it.
const UNREGISTER_WAIT: Duration = Duration::from_secs(10);
/// How long anything else that nobody waits for may take.
const NOTICE_WAIT: Duration = Duration::from_secs(30);

#[derive(Serialize)]
struct RegisterNanny<'a> {
    op: &'a str,
    reply: bool,
    address: &'a Address,
}

#[derive(Deserialize)]
struct Registered {
    #[serde(rename = "nanny-plugins", default)]
    nanny_plugins: Pairs<String, Value>,
}

/// The open registration: the scheduler waits on it for the first worker.
pub(crate) struct Registration(Comm);

/// Registers the nanny; what comes with it are the plugins to set up, pickled, by name.
///
/// # Errors
/// When the scheduler cannot be reached or refuses.
pub(crate) async fn register_nanny(
    pool: &ConnectionPool,
    scheduler: &Address,
    address: &Address,
) -> Result<(Registration, Vec<(String, Value)>), CommError> {
    let mut comm = Comm::connect(scheduler, pool.config()).await?;
    comm.send_value(&RegisterNanny { op: "register_nanny", reply: true, address }).await?;
    let reply = comm.recv().await?;
    dask_protocol::comm::pool::check_reply("register_nanny", scheduler, &reply)?;
    let registered: Registered = reply.decode()?;
    Ok((Registration(comm), registered.nanny_plugins.0))
}

impl Registration {
    /// Tells whether the first worker runs, which completes the registration.
    pub(crate) async fn complete(mut self, ok: bool) {
        #[derive(Serialize)]
        struct Status {
            status: &'static str,
        }
        let told = async {
            self.0.send_value(&Status { status: if ok { "ok" } else { "error" } }).await?;
            self.0.recv().await.map(drop)
        };
        match timeout(NOTICE_WAIT, told).await {
            Ok(Ok(())) | Ok(Err(CommError::Closed { .. })) => {}
            Ok(Err(error)) => debug!(%error, "could not complete the registration"),
            Err(_) => debug!("the scheduler did not complete the registration"),
        }
    }
}

/// Tells the scheduler that a worker is gone, which it usually knows by then.
pub(crate) async fn unregister(pool: &ConnectionPool, scheduler: &Address, worker: &Address) {
    #[derive(Serialize)]
    struct Unregister<'a> {
        address: &'a Address,
        stimulus_id: String,
    }
    let stimulus_id = format!("nanny-close-{}", now());
    let args = Unregister { address: worker, stimulus_id };
    match timeout(UNREGISTER_WAIT, pool.call::<_, Value>(scheduler, "unregister", &args)).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => warn!(target: "distributed.nanny", "Failed to unregister {worker}: {error}"),
        Err(_) => warn!(target: "distributed.nanny", "Timed out unregistering {worker}"),
    }
}

/// Logs the event that upstream's nannies log when a worker used too much memory.
pub(crate) async fn log_memory_restart(
    pool: &ConnectionPool,
    scheduler: &Address,
    worker: &Address,
    pid: u32,
    rss: u64,
) {
    #[derive(Serialize)]
    struct Restarted<'a> {
        worker: &'a Address,
        pid: u32,
        rss: u64,
    }
    #[derive(Serialize)]
    struct LogEvent<'a> {
        topic: &'a str,
        msg: Restarted<'a>,
    }
    let args = LogEvent { topic: "worker-restart-memory", msg: Restarted { worker, pid, rss } };
    match timeout(NOTICE_WAIT, pool.call::<_, Value>(scheduler, "log_event", &args)).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => debug!(%error, "could not log worker-restart-memory"),
        Err(_) => debug!("timed out logging worker-restart-memory"),
    }
}

/// Tells how a worker ended, for the errors of the tasks it ran.
pub(crate) async fn report_death(
    pool: &ConnectionPool,
    scheduler: &Address,
    worker: &Address,
    pid: u32,
    exit: Exit,
    memory: Vec<(f64, u64)>,
) {
    #[derive(Serialize)]
    struct Death<'a> {
        worker: &'a Address,
        pid: u32,
        exit: String,
        memory: Vec<(f64, u64)>,
    }
    #[derive(Serialize)]
    struct LogEvent<'a> {
        topic: &'a str,
        msg: Death<'a>,
    }
    let exit = format!("{exit} (process {pid})");
    let args = LogEvent { topic: "worker-post-mortem", msg: Death { worker, pid, exit, memory } };
    match timeout(NOTICE_WAIT, pool.call::<_, Value>(scheduler, "log_event", &args)).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => debug!(%error, "could not report a worker's death"),
        Err(_) => debug!("timed out reporting a worker's death"),
    }
}

/// Seconds since the epoch.
pub(crate) fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}
