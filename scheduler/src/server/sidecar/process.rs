//! The process and its connection.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use dask_protocol::Value;
use dask_protocol::comm::{BatchedSender, CommReader};
use dask_protocol::message::{Message, Request};
use futures::future::BoxFuture;
use tokio::process::Child;
use tokio::sync::{Semaphore, oneshot};
use tracing::{error, warn};

use super::super::beside::{self, Program};
use super::super::failure::{Failure, Reply};
use super::super::rpc;
use super::super::shared::Server;
use super::facts;

/// Most questions of Python's that are answered at a time; more wait.
const QUESTIONS_MAX: usize = 256;
/// How long to wait for the exit status of a process that closed its connection.
const EXIT_MAX: Duration = Duration::from_secs(5);

/// A running process.
pub(super) struct Process {
    sender: BatchedSender<Value>,
    next_id: AtomicU64,
    /// Who waits for which reply; `None` once the process is gone.
    waiting: Mutex<Option<HashMap<u64, oneshot::Sender<Value>>>>,
}

impl Process {
    /// Starts it.
    ///
    /// # Errors
    /// Why no Python serves, as text for the user.
    pub(super) async fn start(server: &Arc<Server>) -> Result<Arc<Process>, String> {
        let directory = server.graphs.helpers().directory().map_err(|error| error.to_string())?;
        let introduction = Value::map([
            ("address", Value::from(server.address.as_str())),
            ("id", server.id.as_str().into()),
            ("started", server.started.into()),
            ("directory", directory.to_string_lossy().into_owned().into()),
        ]);
        let module = "dask_rs_scheduler.__main__";
        let program = Program { module, who: "scheduler python", environment: &[], introduction };
        let (child, comm) = beside::start(server, &program).await?;
        let (reader, writer) = comm.split();
        let process = Arc::new(Process {
            sender: BatchedSender::spawn(writer),
            next_id: AtomicU64::new(0),
            waiting: Mutex::new(Some(HashMap::new())),
        });
        tokio::spawn(follow(Arc::clone(server), Arc::clone(&process), reader, child));
        Ok(process)
    }

    /// Whether it is still there, as far as is known.
    pub(super) fn is_alive(&self) -> bool {
        self.waiting().is_some()
    }

    /// Asks for something; none when the process ends first.
    pub(super) async fn ask<const N: usize>(&self, op: &str, fields: [(&'static str, Value); N]) -> Option<Value> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        self.waiting().as_mut()?.insert(id, answer);
        let head = [("op", Value::from(op)), ("id", id.into())];
        if !self.sender.send(Value::map(head.into_iter().chain(fields))) {
            self.end();
        }
        answered.await.ok()
    }

    fn replied(&self, id: u64, reply: Value) {
        let waiting = self.waiting().as_mut().and_then(|waiting| waiting.remove(&id));
        if let Some(answer) = waiting {
            // Whoever asked may have left.
            let _ = answer.send(reply);
        }
    }

    fn end(&self) {
        *self.waiting() = None;
    }

    fn waiting(&self) -> MutexGuard<'_, Option<HashMap<u64, oneshot::Sender<Value>>>> {
        self.waiting.lock().expect("no code panics while it holds who waits")
    }
}

/// Takes what the process says until it ends.
async fn follow(server: Arc<Server>, process: Arc<Process>, mut reader: CommReader, mut child: Child) {
    let room = Arc::new(Semaphore::new(QUESTIONS_MAX));
    let ended = loop {
        let batch = tokio::select! {
            received = reader.recv() => received.and_then(|message| Ok(message.decode::<Value>()?)),
            () = server.closing.cancelled() => return,
        };
        let batch = match batch {
            Ok(batch) => batch,
            Err(error) => break error,
        };
        for message in batch.as_items().unwrap_or_default() {
            let id =
                message.get("id").and_then(Value::as_i64).and_then(|id| u64::try_from(id).ok()).unwrap_or_default();
            match message.get("op").and_then(Value::as_str) {
                Some("reply") => process.replied(id, message.get("reply").cloned().unwrap_or_default()),
                Some("ask") => {
                    let request = message.get("request").cloned().unwrap_or_default();
                    let permit = Arc::clone(&room).acquire_owned().await.expect("the semaphore is never closed");
                    let (server, process) = (Arc::clone(&server), Arc::clone(&process));
                    tokio::spawn(async move {
                        let reply = answered(&server, &process, request).await;
                        let fields = [("op", Value::from("answer")), ("id", id.into()), ("reply", reply)];
                        process.sender.send(Value::map(fields));
                        drop(permit);
                    });
                }
                other => warn!(target: "distributed.scheduler", "Python beside the scheduler said {other:?}"),
            }
        }
    };
    process.end();
    // Its plugins hear nothing until another process has them.
    let _ = server.driver.run(|core| core.set_hooks(None)).await;
    let _ = child.start_kill();
    let status = tokio::time::timeout(EXIT_MAX, child.wait()).await;
    let status = status.ok().and_then(Result::ok).map_or_else(|| "still running".to_owned(), |it| it.to_string());
    error!(target: "distributed.scheduler", "Python beside the scheduler ended ({status}): {ended}");
}

/// The answer to a question, or the error instead.
async fn answered(server: &Arc<Server>, process: &Process, request: Value) -> Value {
    let answered = match Message::encode(&request) {
        Ok(message) => match Request::from_message(message) {
            Ok(request) => answer(server, &process.sender, request).await,
            Err(error) => Err(Failure::from(error)),
        },
        Err(error) => Err(Failure::runtime(error.to_string())),
    };
    let message = answered.unwrap_or_else(Failure::into_message);
    message.decode().unwrap_or_default()
}

async fn answer(server: &Arc<Server>, sender: &BatchedSender<Value>, request: Request) -> Reply {
    match facts::answer(server, sender, &request).await {
        Some(reply) => reply,
        None => remote_call(Arc::clone(server), request).await,
    }
}

/// Boxed: handlers ask this process, which asks handlers, and the compiler would follow that for ever.
fn remote_call(server: Arc<Server>, request: Request) -> BoxFuture<'static, Reply> {
    Box::pin(async move { rpc::answer(&server, request).await })
}
