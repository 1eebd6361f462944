//! The one task that owns the scheduler's state.
//!
//! Connection tasks decode and hand over [`Input`]s; the driver takes all that wait, carries out what the state decides
//! and then lets the streams' writer tasks run. It never waits for a peer: every send is into a queue.

use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::core::Core;
use super::failure::SchedulerClosed;
use crate::state::Event;

/// Most inputs that wait for the driver; a connection that wants to add one more waits, and with it its peer.
pub(crate) const INPUTS_WAITING_MAX: usize = 4096;
/// Most inputs taken before timers are looked at again.
const INPUTS_PER_TURN: usize = 1024;
/// How long the driver sleeps at most without being asked to.
const SLEEP_MAX: Duration = Duration::from_secs(60);

/// What the driver is given.
pub(crate) enum Input {
    /// Things that happened, in order.
    Events(Vec<Event>),
    /// A question, or a change that touches more than the state.
    Run(Box<dyn FnOnce(&mut Core) + Send>),
}

/// The way to the driver.
#[derive(Clone)]
pub(crate) struct Driver {
    inputs: mpsc::Sender<Input>,
}

impl Driver {
    /// Starts the driver task. It ends when all handles are dropped.
    pub(crate) fn start(core: Core) -> (Driver, JoinHandle<()>) {
        let (inputs, waiting) = mpsc::channel(INPUTS_WAITING_MAX);
        (Driver { inputs }, tokio::spawn(drive(core, waiting)))
    }

    /// Tells what happened.
    pub(crate) async fn events(&self, events: Vec<Event>) -> Result<(), SchedulerClosed> {
        if events.is_empty() {
            return Ok(());
        }
        self.inputs.send(Input::Events(events)).await.map_err(|_| SchedulerClosed)
    }

    /// Tells one thing that happened.
    pub(crate) async fn event(&self, event: Event) -> Result<(), SchedulerClosed> {
        self.events(vec![event]).await
    }

    /// Runs `f` on the driver, after everything handed over before, and returns what it returns.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        f: impl FnOnce(&mut Core) -> T + Send + 'static,
    ) -> Result<T, SchedulerClosed> {
        let (answer, answered) = oneshot::channel();
        let run = Box::new(move |core: &mut Core| {
            // A caller that no longer waits has been disconnected; its question was harmless.
            let _ = answer.send(f(core));
        });
        self.inputs.send(Input::Run(run)).await.map_err(|_| SchedulerClosed)?;
        answered.await.map_err(|_| SchedulerClosed)
    }
}

async fn drive(mut core: Core, mut inputs: mpsc::Receiver<Input>) {
    let mut turn = Vec::with_capacity(INPUTS_PER_TURN);
    loop {
        let wake = core.next_wake().min(SLEEP_MAX);
        tokio::select! {
            biased;
            taken = inputs.recv_many(&mut turn, INPUTS_PER_TURN) => if taken == 0 { return },
            () = tokio::time::sleep(wake) => {}
        }
        let began = Instant::now();
        for input in turn.drain(..) {
            match input {
                Input::Events(events) => events.into_iter().for_each(|event| core.handle(event)),
                Input::Run(run) => run(&mut core),
            }
        }
        core.handle_due_timeouts();
        core.flush();
        core.turns.add(began.elapsed().as_secs_f64());
    }
}
