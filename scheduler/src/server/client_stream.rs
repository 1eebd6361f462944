//! A client's stream: `register-client`, then its messages in order until it leaves.

use std::collections::VecDeque;
use std::sync::Arc;

use dask_protocol::comm::{BatchedSender, Comm, CommReader};
use dask_protocol::message::{ClientToScheduler, Keys, Message, Request, SchedulerToClient, StreamStart, UpdateData};
use dask_protocol::native::RELEASE;
use dask_protocol::{Address, CommError, Key, Value};
use serde::Deserialize;
use tracing::{info, warn};

use super::failure::SchedulerClosed;
use super::listener::explain_end;
use super::peers::Session;
use super::shared::Server;
use super::versions;
use crate::state::{ClientId, Event};

/// Most messages read ahead while a client's graph is made; a client that says more is noticed to leave only afterwards.
const EARLY_MESSAGES_MAX: usize = 64;

#[derive(Deserialize)]
struct RegisterClient {
    client: String,
    #[serde(default)]
    versions: Value,
}

/// Serves a client until its stream ends.
pub(crate) async fn serve(server: Arc<Server>, mut comm: Comm, request: Request) {
    let peer = comm.peer().clone();
    let RegisterClient { client, versions } = match request.args() {
        Ok(args) => args,
        Err(error) => return explain_end(&peer, &error.into()),
    };
    let client: ClientId = client.into();
    info!(target: "distributed.scheduler", "Receive client connection: {client}");
    if let Some(error) = versions::refusal(&client, &versions) {
        warn!(target: "distributed.scheduler", "{error}");
        let refusal = StreamStart { error, release: Some(RELEASE.to_owned()), ..StreamStart::default() };
        if let Err(error) = comm.send_value(&[SchedulerToClient::from(refusal)]).await {
            explain_end(&peer, &error);
        }
        return;
    }
    // It may hold the interpreter's lock, or collect garbage, for longer than any timeout: that ends nothing.
    if let Err(error) = comm.let_peer_be_busy() {
        warn!(target: "distributed.scheduler", "{client} may lose its connection when it is busy: {error}");
    }
    let is_native = versions::is_native(&versions);
    let warning = versions::warning_for(&server, "Client", versions).await;
    // Before it is told: its first call, over another connection, may be here at once.
    let id = client.clone();
    let Ok(session) = server.driver.run(move |core| core.add_client(&id, is_native)).await else { return };
    let mut stream = ClientStream { server, client, session, peer, events: Vec::new(), early: VecDeque::new() };
    let start =
        SchedulerToClient::from(StreamStart { warning, error: String::new(), release: Some(RELEASE.to_owned()) });
    match comm.send_value(&[start]).await {
        Ok(()) => stream.serve(comm).await,
        Err(error) => explain_end(&stream.peer, &error),
    }
    stream.finish().await;
}

struct ClientStream {
    server: Arc<Server>,
    client: ClientId,
    session: Session,
    peer: Address,
    /// Decoded and not yet handed to the driver.
    events: Vec<Event>,
    /// What arrived while a graph was made; in order.
    early: VecDeque<Message>,
}

/// Why a stream ends.
enum End {
    Asked,
    /// The connection broke.
    Left,
    Scheduler,
}

impl From<SchedulerClosed> for End {
    fn from(_: SchedulerClosed) -> End {
        End::Scheduler
    }
}

impl ClientStream {
    async fn serve(&mut self, comm: Comm) {
        let (reader, writer) = comm.split();
        let sender = BatchedSender::spawn(writer);
        let (id, session) = (self.client.clone(), self.session);
        let attached = self.server.driver.run(move |core| core.attach_client(&id, session, sender)).await;
        if attached.is_ok() {
            info!(target: "distributed.core", "Starting established connection to {}", self.peer);
            self.follow(reader).await;
        }
    }

    async fn follow(&mut self, mut reader: CommReader) {
        loop {
            let batch = match self.early.pop_front() {
                Some(message) => message.decode_stream::<ClientToScheduler>().map_err(CommError::from),
                None => reader.recv_batch::<ClientToScheduler>().await,
            };
            let batch = match batch {
                Ok(batch) => batch,
                Err(error) => {
                    info!(target: "distributed.core", "Connection to {} has been closed.", self.peer);
                    return explain_end(&self.peer, &error);
                }
            };
            for message in batch {
                match self.handle(message, &mut reader).await {
                    Ok(()) => {}
                    Err(End::Asked) => {
                        info!(target: "distributed.core", "Received 'close-stream' from {}; closing.", self.peer);
                        return;
                    }
                    Err(End::Left | End::Scheduler) => return,
                }
            }
            if self.flush().await.is_err() {
                return;
            }
        }
    }

    async fn flush(&mut self) -> Result<(), SchedulerClosed> {
        self.server.driver.events(std::mem::take(&mut self.events)).await
    }

    /// The client holds a future that it got from a queue or variable.
    async fn hold(&mut self, key: Key) -> Result<(), SchedulerClosed> {
        self.events.push(Event::ClientDesiresKeys { client: self.client.clone(), keys: vec![key] });
        self.flush().await
    }

    /// The sender, unless the message speaks for another (`fire_and_forget`).
    fn on_behalf(&self, named: Option<String>) -> ClientId {
        named.map_or_else(|| self.client.clone(), ClientId::from)
    }

    async fn handle(&mut self, message: ClientToScheduler, reader: &mut CommReader) -> Result<(), End> {
        match message {
            ClientToScheduler::UpdateGraph(update) => {
                self.flush().await?;
                let client = self.on_behalf(update.client.clone());
                let server = Arc::clone(&self.server);
                let made = server.graphs.update_graph(client, update);
                let (event, shuffles) = self.unless_it_leaves(made, reader).await?;
                if !shuffles.is_empty() {
                    self.server.driver.run(move |core| core.shuffles.expect(shuffles)).await?;
                }
                self.events.push(event);
            }
            ClientToScheduler::UpdateNativeGraph(update) => {
                self.flush().await?;
                let event = self.server.graphs.update_native_graph(self.client.clone(), update).await;
                self.events.push(event);
            }
            ClientToScheduler::ClientReleasesKeys(release) => {
                let client = self.on_behalf(release.client);
                self.events.push(Event::ClientReleasesKeys { client, keys: release.keys.0 });
            }
            ClientToScheduler::ClientDesiresKeys(desire) => {
                let client = self.on_behalf(desire.client);
                self.events.push(Event::ClientDesiresKeys { client, keys: desire.keys.0 });
            }
            ClientToScheduler::CancelKeys(cancel) => {
                self.explain_cancel(&cancel.keys);
                let client = self.on_behalf(cancel.client);
                let (keys, force) = (cancel.keys.0, cancel.force);
                self.events.push(Event::CancelKeys { client, keys, force, reason: cancel.reason, msg: cancel.msg });
            }
            ClientToScheduler::ReportKey(report) => {
                self.events.push(Event::ReportKey { client: self.client.clone(), key: report.key });
            }
            ClientToScheduler::UpdateData(data) => self.update_data(data),
            ClientToScheduler::HeartbeatClient(_) => {
                let client = self.client.clone();
                self.server.driver.run(move |core| core.client_heartbeat(&client)).await?;
            }
            ClientToScheduler::SubscribeTopic(subscribe) => self.subscribe(&subscribe.topic, true).await?,
            ClientToScheduler::UnsubscribeTopic(unsubscribe) => self.subscribe(&unsubscribe.topic, false).await?,
            ClientToScheduler::CloseClient(_) | ClientToScheduler::CloseStream(_) => {
                self.flush().await?;
                return Err(End::Asked);
            }
            ClientToScheduler::PublishFlush(flush) => {
                self.flush().await?;
                self.server.extensions.publish.flushed(&flush.uid);
            }
            ClientToScheduler::QueueFutureRelease(release) => {
                self.hold(release.key.clone()).await?;
                self.server.extensions.queues.future_release(&self.server, &release.name, release.key).await?;
            }
            ClientToScheduler::QueueRelease(release) => {
                self.flush().await?;
                self.server.extensions.queues.release(&self.server, &release.name).await?;
            }
            ClientToScheduler::VariableFutureReceived(received) => {
                self.hold(received.key.clone()).await?;
                self.server.extensions.variables.future_received(&received.name, &received.key, &received.token);
            }
            ClientToScheduler::VariableDelete(delete) => {
                self.flush().await?;
                self.server.extensions.variables.delete(&self.server, &delete.name).await?;
            }
        }
        Ok(())
    }

    /// Waits for a graph, which may take Python minutes, and gives up when the client leaves meanwhile.
    async fn unless_it_leaves<T>(&mut self, made: impl Future<Output = T>, reader: &mut CommReader) -> Result<T, End> {
        let mut made = std::pin::pin!(made);
        loop {
            tokio::select! {
                made = &mut made => return Ok(made),
                arrived = reader.recv(), if self.early.len() < EARLY_MESSAGES_MAX => match arrived {
                    Ok(message) => self.early.push_back(message),
                    Err(error) => {
                        info!(target: "distributed.core", "Connection to {} has been closed.", self.peer);
                        explain_end(&self.peer, &error);
                        return Err(End::Left);
                    }
                },
            }
        }
    }

    fn explain_cancel(&self, keys: &Keys) {
        info!(target: "distributed.scheduler", "Client {} requests to cancel {} keys", self.client, keys.len());
    }

    fn update_data(&mut self, data: UpdateData) {
        let sizes: std::collections::HashMap<Key, i64> = data.nbytes.into_iter().collect();
        let place = |(key, workers): (Key, Vec<Address>)| {
            let nbytes = sizes.get(&key).copied().unwrap_or(-1);
            (key, workers, nbytes)
        };
        let data_placed = data.who_has.into_iter().map(place).collect();
        let client = Some(self.on_behalf(data.client));
        let stimulus_id = format!("update-data-{}", self.server.clock.now()).into();
        self.events.push(Event::UpdateData { data: data_placed, client, stimulus_id });
    }

    async fn subscribe(&mut self, topic: &Value, on: bool) -> Result<(), SchedulerClosed> {
        self.flush().await?;
        let Some(topic) = topic.to_key() else {
            warn!(target: "distributed.scheduler", "Client {} named a topic that is no key", self.client);
            return Ok(());
        };
        let client = self.client.clone();
        let change = move |core: &mut super::core::Core| match on {
            true => core.events.subscribe(topic, client),
            false => core.events.unsubscribe(&topic, &client),
        };
        self.server.driver.run(change).await
    }

    async fn finish(mut self) {
        // A scheduler that closes has ended the stream itself.
        let _ = self.flush().await;
        let (client, session) = (self.client.clone(), self.session);
        let removed = self.server.driver.run(move |core| core.remove_client(&client, session)).await;
        if removed == Ok(true) {
            info!(target: "distributed.scheduler", "Remove client {}", self.client);
            info!(target: "distributed.scheduler", "Close client connection: {}", self.client);
        }
    }
}
