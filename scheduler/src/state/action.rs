//! What the scheduler's state wants done. The shell does it and decides nothing.

use dask_protocol::message::{SchedulerToClient, SchedulerToWorker};
use dask_protocol::{Address, Key, Value};

use super::event::ClientId;
use super::task::TaskState;

/// One thing to do. Actions are carried out in order; messages to one peer keep their order.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Send on a client's stream, if it still has one. Pseudo clients have none.
    ToClient {
        /// To whom.
        client: ClientId,
        /// What.
        message: SchedulerToClient,
    },
    /// Send on every client's stream.
    ToAllClients {
        /// What.
        message: SchedulerToClient,
    },
    /// Send on a worker's stream.
    ToWorker {
        /// To whom.
        worker: Address,
        /// What.
        message: SchedulerToWorker,
    },
    /// A worker left the state: close its stream after what was sent, and log it.
    WorkerRemoved {
        /// Which.
        worker: Address,
        /// Its name.
        name: Value,
        /// Whether it was the last one.
        last: bool,
        /// Why.
        stimulus_id: String,
    },
    /// A retirement ended.
    WorkersRetired {
        /// The one that asked.
        token: u64,
        /// Who handed everything over.
        retired: Vec<Address>,
        /// Who could not, and is running again.
        kept: Vec<Address>,
    },
    /// A P2P barrier was released, erred or forgotten: the run of its shuffle is over.
    ShuffleEnded {
        /// The key of the barrier task.
        barrier: Key,
        /// Which of the three.
        state: TaskState,
    },
    /// Append to a topic of the event log.
    LogEvent {
        /// The topic.
        topic: Value,
        /// The event.
        msg: Value,
    },
}

/// Actions in the order in which they were decided.
pub type Actions = Vec<Action>;
