//! A worker's stream: `register-worker`, then its messages until either side lets go.
//!
//! A worker that asked for it may go on over another connection when this one is cut (`resume-worker`). Upstream's workers
//! never reconnect: for them a cut is the end.

use std::sync::Arc;
use std::time::Duration;

use dask_protocol::comm::{BatchedSender, Comm, CommReader, refused, resolve};
use dask_protocol::message::{
    RegisterWorker, RegisterWorkerReply, Request, ResumeWorker, ResumeWorkerReply, WorkerToScheduler,
};
use dask_protocol::{Address, CommError};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::core::{Refusal, Registered};
use super::failure::Failure;
use super::listener::explain_end;
use super::peers::Session;
use super::reconnect::Claim;
use super::shared::Server;
use super::versions;
use super::worker_link::Link;
use crate::state::{Event, POST_MORTEM_TOPIC};

/// How long a worker may take to read its registration reply.
const REPLY_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a removed worker may take to close its side, so that it reads the `close` sent to it.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves a worker until its stream ends, or goes on over another connection.
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
    let reply = welcome(&server, &registered, warning);
    let Registered { session, removed, link, .. } = registered;
    let stream = Stream { server, worker: address, session, removed, link, number: 0 };
    let written = timeout(REPLY_TIMEOUT, comm.send_value(&reply)).await;
    if matches!(written, Ok(Ok(()))) {
        let (reader, writer) = comm.split();
        let resumable = stream.link.is_some();
        let sender = if resumable { BatchedSender::spawn_resumable(writer) } else { BatchedSender::spawn(writer) };
        let at = stream.worker.clone();
        if stream.server.driver.run(move |core| core.attach_worker(&at, session, sender)).await.is_ok() {
            info!(target: "distributed.scheduler", "Starting worker compute stream, {}", stream.worker);
            info!(target: "distributed.core", "Starting established connection to {peer}");
            return stream.serve(reader).await;
        }
    }
    stream.lost().await;
}

/// Takes the stream of a worker that was cut up again, if this is that worker.
pub(crate) async fn resume(server: Arc<Server>, mut comm: Comm, request: Request) {
    let peer = comm.peer().clone();
    let ResumeWorker { address, token, received, resolve_address } = match request.args() {
        Ok(arguments) => arguments,
        Err(error) => return refuse(&mut comm, Failure::from(error)).await,
    };
    let worker = match known_as(&address, resolve_address).await {
        Ok(worker) => worker,
        Err(error) => return refuse(&mut comm, Failure::from(error)).await,
    };
    let at = worker.clone();
    let Ok(claim) = server.driver.run(move |core| core.claim_worker(&at, &token)).await else { return };
    let Some(Claim { session, link, removed }) = claim else {
        return refuse_return(&mut comm, &worker, "this worker is not waited for any more").await;
    };
    let number = link.supersede();
    let stream = Stream { server, worker, session, removed, link: Some(Arc::clone(&link)), number };
    let reading = tokio::select! {
        reading = link.read() => reading,
        () = stream.over() => return,
    };
    let at = stream.worker.clone();
    match stream.server.driver.run(move |core| core.detach_worker(&at, session, received)).await {
        Ok(Ok(())) => {}
        Ok(Err(reason)) => {
            refuse_return(&mut comm, &stream.worker, &reason.to_string()).await;
            return stream.lost().await;
        }
        Err(_) => return,
    }
    let reply = ResumeWorkerReply { status: "OK".into(), received: link.received(), message: None };
    let written = tokio::select! {
        written = timeout(REPLY_TIMEOUT, comm.send_value(&reply)) => matches!(written, Ok(Ok(()))),
        () = stream.over() => return,
    };
    drop(reading);
    if !written {
        return stream.wait_for_return().await;
    }
    let (reader, writer) = comm.split();
    let at = stream.worker.clone();
    let resumed = stream.server.driver.run(move |core| core.reattach_worker(&at, session, number, writer, received));
    match resumed.await {
        Ok(Ok(())) => {
            info!(target: "distributed.core", "Starting established connection to {peer}");
            stream.serve(reader).await;
        }
        Ok(Err(reason)) => {
            warn!(target: "distributed.scheduler", "The stream of worker {} cannot go on: {reason}", stream.worker);
            stream.lost().await;
        }
        Err(_) => {}
    }
}

async fn refuse_return(comm: &mut Comm, worker: &Address, reason: &str) {
    let peer = comm.peer().clone();
    warn!(target: "distributed.scheduler", "Refused to take up the stream of worker {worker} from {peer}: {reason}");
    let reply = ResumeWorkerReply { status: "error".into(), received: 0, message: Some(reason.to_owned()) };
    if let Err(error) = comm.send_value(&reply).await {
        explain_end(&peer, &error);
    }
}

/// A worker's stream over one connection.
struct Stream {
    server: Arc<Server>,
    worker: Address,
    session: Session,
    removed: CancellationToken,
    /// When the stream may go on over another connection.
    link: Option<Arc<Link>>,
    /// Which connection of the link's this is.
    number: u64,
}

/// How the reading from a connection ended.
enum End {
    /// It broke.
    Cut,
    /// The worker left, or sent what nobody may send.
    Left,
    /// The worker is removed, or another connection has taken over, or the scheduler closes.
    Over,
}

impl Stream {
    /// Reads until the connection ends, and sees to what follows from that.
    async fn serve(self, reader: CommReader) {
        let end = match self.link.clone() {
            Some(link) => {
                let _reading = tokio::select! {
                    reading = link.read() => reading,
                    () = self.over() => return,
                };
                self.follow(reader).await
            }
            None => self.follow(reader).await,
        };
        match (end, &self.link) {
            (End::Over, _) => {}
            (End::Cut, Some(link)) if !link.is_ending() => self.wait_for_return().await,
            (End::Cut | End::Left, _) => self.lost().await,
        }
    }

    async fn follow(&self, mut reader: CommReader) -> End {
        loop {
            let received = tokio::select! {
                biased;
                () = self.removed.cancelled() => {
                    farewell(reader).await;
                    return End::Over;
                }
                () = self.superseded() => return End::Over,
                received = reader.recv_batch::<WorkerToScheduler>() => received,
            };
            let batch = match received {
                Ok(batch) => batch,
                Err(error) => {
                    info!(target: "distributed.core", "Connection to {} has been closed.", reader.peer());
                    explain_end(reader.peer(), &error);
                    return if error.is_cut() { End::Cut } else { End::Left };
                }
            };
            let asked = batch.iter().position(|message| matches!(message, WorkerToScheduler::CloseStream(_)));
            if let Some(link) = self.link.as_ref().filter(|_| batch.iter().any(tells_of_death)) {
                link.ends();
            }
            let messages = batch.into_iter().take(asked.unwrap_or(usize::MAX));
            let worker = &self.worker;
            let events = messages.map(|message| Event::WorkerMessage { worker: worker.clone(), message }).collect();
            if self.server.driver.events(events).await.is_err() {
                return End::Over;
            }
            if let Some(link) = &self.link {
                link.took_one();
            }
            if asked.is_some() {
                info!(target: "distributed.core", "Received 'close-stream' from {}; closing.", reader.peer());
                return End::Left;
            }
        }
    }

    /// Gives a worker that was cut time to come back.
    async fn wait_for_return(self) {
        let Some(link) = self.link.clone() else { return self.lost().await };
        let (at, session, number) = (self.worker.clone(), self.session, self.number);
        let waited_for = self.server.driver.run(move |core| core.worker_cut(&at, session, number)).await;
        if !waited_for.unwrap_or(false) {
            return;
        }
        let (worker, grace) = (&self.worker, link.grace());
        info!(
            target: "distributed.scheduler",
            "Connection to worker {worker} lost; waiting {:.0} s for it", grace.as_secs_f64()
        );
        tokio::select! {
            () = self.over() => return,
            () = refused(worker, Duration::ZERO) => {
                info!(target: "distributed.scheduler", "Nobody listens at {worker} any more; the worker is gone");
            }
            () = tokio::time::sleep(grace) => {
                warn!(target: "distributed.scheduler", "Worker {worker} did not come back in {:.0} s", grace.as_secs_f64());
            }
        }
        self.lost().await;
    }

    /// The worker is gone, unless it came back over another connection.
    async fn lost(self) {
        let Stream { server, worker, session, number, .. } = self;
        // When the scheduler itself closes there is nobody left to tell.
        let _ = server.driver.run(move |core| core.worker_lost(&worker, session, number)).await;
    }

    /// Waits until this connection does not matter any more.
    async fn over(&self) {
        tokio::select! {
            () = self.removed.cancelled() => {}
            () = self.superseded() => {}
        }
    }

    async fn superseded(&self) {
        match &self.link {
            Some(link) => link.superseded(self.number).await,
            None => std::future::pending().await,
        }
    }
}

/// What a worker says last whose Python process died.
fn tells_of_death(message: &WorkerToScheduler) -> bool {
    matches!(message, WorkerToScheduler::LogEvent(event) if event.topic.as_str() == Some(POST_MORTEM_TOPIC))
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
        status: "OK".into(),
        time: registered.time,
        heartbeat_interval: Some(registered.heartbeat_interval),
        worker_plugins: server.plugins.worker_plugins(),
        warning,
        error: String::new(),
        message: None,
        resume: registered.link.as_ref().map(|link| link.grant()),
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
                status: "error".into(),
                time: server.clock.now(),
                heartbeat_interval: None,
                worker_plugins: Default::default(),
                warning: String::new(),
                error: String::new(),
                message: Some(format!("name taken, {name}")),
                resume: None,
            };
            if let Err(error) = comm.send_value(&reply).await {
                explain_end(comm.peer(), &error);
            }
        }
    }
}

/// Reads on without listening until the worker hangs up: closing at once could cut what was sent to it.
async fn farewell(mut reader: CommReader) {
    let until_closed = async { while reader.recv().await.is_ok() {} };
    // A worker that does not hang up in time is cut off.
    let _ = timeout(FAREWELL_TIMEOUT, until_closed).await;
}
