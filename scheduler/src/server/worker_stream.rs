//! A worker's stream: `register-worker`, then its messages until either side lets go. Workers never reconnect.

use std::sync::Arc;
use std::time::Duration;

use dask_protocol::comm::{BatchedSender, Comm, CommReader, resolve};
use dask_protocol::message::{RegisterWorker, RegisterWorkerReply, Request, WorkerToScheduler};
use dask_protocol::{Address, CommError};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::core::{Refusal, Registered};
use super::failure::Failure;
use super::listener::explain_end;
use super::shared::Server;
use super::versions;
use crate::state::Event;

/// How long a worker may take to read its registration reply.
const REPLY_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a removed worker may take to close its side, so that it reads the `close` sent to it.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves a worker until its stream ends.
pub(crate) async fn serve(server: Arc<Server>, mut comm: Comm, request: Request) {
    let peer = comm.peer().clone();
    let registration: RegisterWorker = match request.args() {
        Ok(registration) => registration,
        Err(error) => return refuse(&mut comm, Failure::from(error)).await,
    };
    let address = match contact_address(&registration).await {
        Ok(address) => address,
        Err(error) => return refuse(&mut comm, Failure::from(error)).await,
    };
    let warning = versions::warning_for(&server, &registration.server_id, registration.versions.clone()).await;
    let at = address.clone();
    let registered = match server.driver.run(move |core| core.register_worker(registration, &at)).await {
        Ok(Ok(registered)) => registered,
        Ok(Err(refusal)) => return explain_refusal(&server, &mut comm, &address, refusal).await,
        Err(_) => return,
    };
    let session = registered.session;
    let removed = registered.removed.clone();
    let written = timeout(REPLY_TIMEOUT, comm.send_value(&welcome(&server, &registered, warning))).await;
    if matches!(written, Ok(Ok(()))) {
        let (reader, writer) = comm.split();
        let sender = BatchedSender::spawn(writer);
        let at = address.clone();
        if server.driver.run(move |core| core.attach_worker(&at, session, sender)).await.is_ok() {
            info!(target: "distributed.scheduler", "Starting worker compute stream, {address}");
            info!(target: "distributed.core", "Starting established connection to {peer}");
            follow(&server, &address, reader, &removed).await;
        }
    }
    // When the scheduler itself closes there is nobody left to tell.
    let _ = server.driver.run(move |core| core.worker_stream_ended(&address, session)).await;
}

/// The address under which the worker is known: host names are looked up unless it asks not to.
pub(crate) async fn contact_address(registration: &RegisterWorker) -> Result<Address, CommError> {
    known_as(&registration.address, registration.resolve_address).await
}

/// The address under which a worker that calls itself `address` is known.
pub(crate) async fn known_as(address: &Address, resolve_address: Option<bool>) -> Result<Address, CommError> {
    let address = Address::normalize(address.as_str(), None)?;
    if resolve_address.unwrap_or(true) { resolve(&address).await } else { Ok(address) }
}

fn welcome(server: &Server, registered: &Registered, warning: String) -> RegisterWorkerReply {
    RegisterWorkerReply {
        status: "OK".to_owned(),
        time: registered.time,
        heartbeat_interval: Some(registered.heartbeat_interval),
        worker_plugins: server.plugins.worker_plugins(),
        warning,
        error: String::new(),
        message: None,
    }
}

async fn refuse(comm: &mut Comm, failure: Failure) {
    let peer = comm.peer().clone();
    if let Failure::Raised(exception) = &failure {
        warn!(target: "distributed.scheduler", "Refused to register a worker from {peer}: {}", exception.text);
    }
    if let Err(error) = comm.send(&failure.into_message()).await {
        explain_end(&peer, &error);
    }
}

async fn explain_refusal(server: &Server, comm: &mut Comm, address: &Address, refusal: Refusal) {
    match refusal {
        Refusal::DuplicateAddress => refuse(comm, Failure::value(format!("Worker already exists {address}"))).await,
        Refusal::DuplicateName(name) => {
            warn!(target: "distributed.scheduler", "Worker tried to connect with a duplicate name: {name}");
            let reply = RegisterWorkerReply {
                status: "error".to_owned(),
                time: server.clock.now(),
                heartbeat_interval: None,
                worker_plugins: Default::default(),
                warning: String::new(),
                error: String::new(),
                message: Some(format!("name taken, {name}")),
            };
            if let Err(error) = comm.send_value(&reply).await {
                explain_end(comm.peer(), &error);
            }
        }
    }
}

async fn follow(server: &Server, worker: &Address, mut reader: CommReader, removed: &CancellationToken) {
    loop {
        let received = tokio::select! {
            received = reader.recv() => received,
            () = removed.cancelled() => return farewell(reader).await,
        };
        let batch = match received {
            Ok(message) => message.decode_stream::<WorkerToScheduler>().map_err(CommError::from),
            Err(error) => Err(error),
        };
        let batch = match batch {
            Ok(batch) => batch,
            Err(error) => {
                info!(target: "distributed.core", "Connection to {} has been closed.", reader.peer());
                return explain_end(reader.peer(), &error);
            }
        };
        let asked = batch.iter().position(|message| matches!(message, WorkerToScheduler::CloseStream(_)));
        let messages = batch.into_iter().take(asked.unwrap_or(usize::MAX));
        let events = messages.map(|message| Event::WorkerMessage { worker: worker.clone(), message }).collect();
        if server.driver.events(events).await.is_err() {
            return;
        }
        if asked.is_some() {
            info!(target: "distributed.core", "Received 'close-stream' from {}; closing.", reader.peer());
            return;
        }
    }
}

/// Reads on without listening until the worker hangs up: closing at once could cut what was sent to it.
async fn farewell(mut reader: CommReader) {
    let until_closed = async { while reader.recv().await.is_ok() {} };
    // A worker that does not hang up in time is cut off.
    let _ = timeout(FAREWELL_TIMEOUT, until_closed).await;
}
