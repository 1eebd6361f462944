//! What a nanny answers on its port.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dask_protocol::comm::{Comm, Incoming};
use dask_protocol::logs::{GetLogs, LogRing};
use dask_protocol::message::{ErrorReply, Request};
use dask_protocol::pickle::builtin_exception;
use dask_protocol::{Address, CommError, DecodeError, Value};
use serde::Deserialize;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{debug, warn};

use crate::event::{Event, Outcome, Waiter};
use crate::python::Python;
use crate::server::View;

/// Upstream's default timeouts, in seconds.
const KILL_SECONDS: f64 = 5.0;
const RESTART_SECONDS: f64 = 30.0;
/// Longest a caller may wait for a restart, in seconds.
const RESTART_SECONDS_MAX: f64 = 86_400.0;

/// What connections share with the driver.
pub(crate) struct Desk {
    pub(crate) address: Address,
    pub(crate) id: String,
    pub(crate) logs: LogRing,
    pub(crate) events: mpsc::UnboundedSender<Event>,
    pub(crate) view: watch::Receiver<View>,
    waiters: Mutex<HashMap<Waiter, oneshot::Sender<Outcome>>>,
    next_waiter: AtomicU64,
    pub(crate) python: Python,
}

#[derive(Deserialize)]
struct TimeoutAndReason {
    #[serde(default)]
    timeout: Option<f64>,
    #[serde(default)]
    reason: Option<String>,
}

impl TimeoutAndReason {
    fn reason(&self, default: &str) -> String {
        self.reason.clone().unwrap_or_else(|| default.to_owned())
    }
}

#[derive(Deserialize)]
struct Echo {
    #[serde(default)]
    data: Value,
}

#[derive(Deserialize)]
struct Named {
    #[serde(default)]
    name: Option<String>,
}

impl Desk {
    pub(crate) fn new(
        address: Address,
        id: String,
        logs: LogRing,
        events: mpsc::UnboundedSender<Event>,
        view: watch::Receiver<View>,
        python: Python,
    ) -> Desk {
        Desk { address, id, logs, events, view, waiters: Mutex::default(), next_waiter: AtomicU64::new(0), python }
    }

    /// Gives the driver's answer to the caller that waits for it, if it still does.
    pub(crate) fn answer(&self, waiter: Waiter, outcome: Outcome) {
        let caller = self.waiters.lock().unwrap_or_else(PoisonError::into_inner).remove(&waiter);
        if let Some(caller) = caller {
            let _ = caller.send(outcome);
        }
    }

    /// Sends an event that will be answered, and waits for that.
    pub(crate) async fn ask(&self, event: impl FnOnce(Waiter) -> Event) -> Outcome {
        let waiter = Waiter(self.next_waiter.fetch_add(1, Ordering::Relaxed));
        let (caller, answer) = oneshot::channel();
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner).insert(waiter, caller);
        let gone = || Outcome::Refused(format!("the nanny at {} is closed", self.address));
        if self.events.send(event(waiter)).is_err() {
            return gone();
        }
        answer.await.unwrap_or_else(|_| gone())
    }

    /// Waits until the nanny has finished.
    pub(crate) async fn finished(&self) {
        // The sender lives until the nanny is finished.
        let _ = self.view.clone().wait_for(|view| view.end.is_some()).await;
    }

    /// Serves one connection until it ends. What a caller does wrong ends only its own connection.
    pub(crate) async fn serve(self: Arc<Self>, incoming: Incoming) {
        let peer = incoming.peer();
        let served = tokio::select! {
            served = self.serve_requests(incoming) => served,
            () = self.wind_down() => Ok(()),
        };
        match served {
            Ok(()) | Err(CommError::Closed { .. }) => {}
            Err(error) => {
                warn!(target: "distributed.nanny", "Closing the connection from {peer}: {error}");
            }
        }
    }

    /// Idle callers need not keep a finished nanny; those that wait for its last answer get a moment.
    async fn wind_down(&self) {
        const MOMENT: Duration = Duration::from_millis(200);
        self.finished().await;
        tokio::time::sleep(MOMENT).await;
    }

    async fn serve_requests(&self, incoming: Incoming) -> Result<(), CommError> {
        let mut comm = incoming.handshake().await?;
        loop {
            let request = Request::from_message(comm.recv().await?)?;
            let (reply, close) = (request.reply, request.close || request.op() == "close");
            let answer = match self.handle(&request).await {
                Ok(answer) => answer,
                Err(Refusal::Arguments(error)) => {
                    Answer::Error(uncaught("TypeError", &format!("{} of the nanny: {error}", request.op())))
                }
                Err(Refusal::Error(error)) => Answer::Error(error),
            };
            if reply {
                answer.send(&mut comm).await?;
            }
            if close {
                comm.close().await;
                return Ok(());
            }
        }
    }

    async fn handle(&self, request: &Request) -> Result<Answer, Refusal> {
        let op = request.op();
        debug!(op, "request");
        match op {
            "identity" => {
                let identity = [("type", Value::from("Nanny")), ("id", Value::from(self.id.clone()))];
                Ok(Answer::Value(Value::map(identity)))
            }
            "echo" => Ok(Answer::Value(request.args::<Echo>()?.data)),
            "close" => Ok(Answer::Value("OK".into())),
            "get_logs" => Ok(Answer::Value(request.args::<GetLogs>()?.reply(&self.logs, "distributed.nanny"))),
            "dump_state" => Ok(Answer::Value(self.dump_state())),
            "kill" => {
                let args: TimeoutAndReason = request.args()?;
                let (timeout, reason) = (args.timeout.unwrap_or(KILL_SECONDS), args.reason("nanny-kill"));
                match self.ask(|waiter| Event::Kill { timeout, reason, waiter }).await {
                    Outcome::Ok => Ok(Answer::Value(Value::Nil)),
                    Outcome::Refused(text) => Err(Refusal::Error(uncaught("RuntimeError", &text))),
                }
            }
            "restart" => self.restart(request.args()?).await,
            "instantiate" => match self.ask(|waiter| Event::Instantiate { waiter }).await {
                Outcome::Ok => Ok(Answer::Value(status_enum("running"))),
                Outcome::Refused(text) => Err(Refusal::Error(uncaught("RuntimeError", &text))),
            },
            "terminate" => {
                let args: TimeoutAndReason = request.args()?;
                let timeout = args.timeout.unwrap_or(KILL_SECONDS);
                // A nanny that has finished already needs no more telling.
                let _ = self.events.send(Event::Close { timeout, reason: args.reason("nanny-close") });
                self.finished().await;
                Ok(Answer::Value("OK".into()))
            }
            "close_gracefully" => {
                let args: TimeoutAndReason = request.args()?;
                let _ = self.events.send(Event::CloseGracefully { reason: args.reason("nanny-close-gracefully") });
                Ok(Answer::Value(Value::Nil))
            }
            "run" | "plugin_add" | "plugin_remove" if self.python.is_wanted() => self.in_python(request.args()?).await,
            "run" => {
                let text = self.no_python("cannot run a function");
                Err(Refusal::Error(ErrorReply { status: "error".into(), ..uncaught("NotImplementedError", &text) }))
            }
            "plugin_add" => {
                let name = request.args::<Named>()?.name.unwrap_or_else(|| "unnamed".to_owned());
                let text = self.no_python(&format!("cannot set up the nanny plugin {name:?}"));
                warn!(target: "distributed.nanny", "{text}");
                Err(Refusal::Error(ErrorReply { status: "error".into(), ..uncaught("NotImplementedError", &text) }))
            }
            "plugin_remove" => {
                let name = request.args::<Named>()?.name.unwrap_or_default();
                Err(Refusal::Error(ErrorReply { status: "error".into(), ..uncaught("KeyError", &name) }))
            }
            unknown => {
                warn!(target: "distributed.core", "No handler {unknown} found in Nanny");
                let text = format!("the nanny at {} has no operation {unknown:?}", self.address);
                Err(Refusal::Error(uncaught("AttributeError", &text)))
            }
        }
    }

    /// Has Python answer, and starts the worker again if what it did wants that.
    async fn in_python(&self, request: Value) -> Result<Answer, Refusal> {
        let worker = self.view.borrow().worker_address.clone();
        let answered = self.python.ask(request, worker.as_ref()).await;
        let answered = answered.map_err(|text| Refusal::Error(uncaught("RuntimeError", &text)))?;
        // Also one that is only starting: it was given the environment of before.
        if answered.restart {
            let reason = Some("nanny-plugin-restart".to_owned());
            self.restart(TimeoutAndReason { timeout: None, reason }).await?;
        }
        Ok(Answer::Value(answered.reply))
    }

    /// Sets up a plugin that the scheduler named at the registration. What it wants of the environment is there before
    /// the first worker starts.
    pub(crate) async fn set_up_plugin(&self, name: &str, plugin: Value) {
        if !self.python.is_wanted() {
            warn!(target: "distributed.nanny", "{}", self.no_python(&format!("cannot set up the nanny plugin {name:?}")));
            return;
        }
        let request = Value::map([("op", "plugin_add".into()), ("plugin", plugin), ("name", name.into())]);
        match self.python.ask(request, None).await {
            Ok(answered) if answered.reply.get("status").and_then(Value::as_str) == Some("OK") => {}
            Ok(answered) => {
                let text = answered.reply.get("exception_text").and_then(Value::as_str).unwrap_or_default();
                warn!(target: "distributed.nanny", "Nanny plugin {name} failed to set up: {text}");
            }
            Err(text) => warn!(target: "distributed.nanny", "Nanny plugin {name} is not set up: {text}"),
        }
    }

    fn no_python(&self, what: &str) -> String {
        format!(
            "the nanny at {} {what}: it is a native process without Python; start it with --python, or run it on the worker instead (nanny=False)",
            self.address
        )
    }

    async fn restart(&self, args: TimeoutAndReason) -> Result<Answer, Refusal> {
        let seconds = args.timeout.filter(|timeout| timeout.is_finite()).unwrap_or(RESTART_SECONDS);
        let patience = Duration::from_secs_f64(seconds.clamp(0.0, RESTART_SECONDS_MAX));
        let reason = args.reason("nanny-restart");
        let restart = self.ask(|waiter| Event::Restart { timeout: KILL_SECONDS, reason, waiter });
        match tokio::time::timeout(patience, restart).await {
            Ok(Outcome::Ok) => Ok(Answer::Value("OK".into())),
            Ok(Outcome::Refused(text)) => {
                Err(Refusal::Error(ErrorReply { status: "error".into(), ..uncaught("RuntimeError", &text) }))
            }
            Err(_) => {
                tracing::error!(
                    target: "distributed.nanny",
                    "Restart timed out after {seconds}s; returning before finished"
                );
                Ok(Answer::Value("timed out".into()))
            }
        }
    }

    fn dump_state(&self) -> Value {
        let view = self.view.borrow();
        Value::map([
            ("type", Value::from("Nanny")),
            ("id", Value::from(self.id.clone())),
            ("address", Value::from(self.address.as_str())),
            ("status", Value::from(view.status.name())),
            ("worker_address", Value::from(view.worker_address.as_ref().map(Address::as_str))),
        ])
    }
}

enum Answer {
    Value(Value),
    Error(ErrorReply),
}

impl Answer {
    async fn send(&self, comm: &mut Comm) -> Result<(), CommError> {
        match self {
            Answer::Value(value) => comm.send_value(value).await,
            Answer::Error(error) => comm.send_value(error).await,
        }
    }
}

enum Refusal {
    Arguments(DecodeError),
    Error(ErrorReply),
}

impl From<DecodeError> for Refusal {
    fn from(error: DecodeError) -> Refusal {
        Refusal::Arguments(error)
    }
}

fn uncaught(class: &str, text: &str) -> ErrorReply {
    let exception = builtin_exception(class, text);
    ErrorReply::uncaught(exception.pickle, exception.text)
}

/// A member of `distributed.core.Status`.
fn status_enum(name: &str) -> Value {
    Value::enum_member(name, "distributed.core", "Status")
}
