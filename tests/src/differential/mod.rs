//! Upstream's scheduler and ours, side by side: the same events go through both, and after each the states are compared.
//!
//! A scenario is drawn from a seed ([`plan`]): clusters, graphs, workers that finish, fail, leave, pause, and clients that
//! change their mind. [`record::Recorder`] takes each event through our state and writes down what came of it, one JSON
//! object a line; `tests/python/differential/driver.py` takes the same events through a `distributed.Scheduler` object
//! that has no network, and compares. Where upstream's rule leaves the choice of a worker open, our choice is checked to
//! be one of those it leaves open and is then made upstream's too, so that both stay in step.
//!
//! # The lines
//!
//! ```text
//! {"scenario": 7, "saturation": 1.1 | null, "allowed_failures": 3}     begins a scenario; null: no queuing
//! {"at": 1700000000.5, "event": {"op": "task-finished", ...},          one stimulus, with the op's own fields
//!  "placed": [["x-1", "tcp://10.0.0.1:4000"]],                         compute-tasks, in order
//!  "sent": {"tcp://10.0.0.1:4000|x-1": ["compute-task ..."]},          messages per receiver and key, in order
//!  "tasks": {"x-1": {"state": "processing", ...}}, "gone": ["y-2"],    tasks that changed, and those forgotten
//!  "workers": {...}, "left": [...]}                                    the same of workers
//! {"end": 7}
//! ```
//!
//! A message of a worker names a run by its distance from the task's latest (`"back": 0`), since run ids may differ.

pub mod events;
pub mod graphs;
pub mod messages;
pub mod plan;
pub mod record;
pub mod snapshot;
pub mod upstream;
