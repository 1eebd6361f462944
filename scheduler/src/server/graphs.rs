//! Graph intake on behalf of a client's stream, and what else needs the client's Python.

use std::sync::OnceLock;

use dask_protocol::Value;
use dask_protocol::message::{StimulusId, UpdateGraph, UpdateNativeGraph};
use tracing::{error, warn};

use super::clock::Clock;
use super::versions::own_versions;
use crate::graph::helper::{BarrierFacts, HelperPool};
use crate::graph::intake::{Intake, take_native};
use crate::state::{ClientId, Event};

/// Native graphs of up to so many tasks are taken in where they arrive: that takes less than a switch of threads costs.
const INLINE_TASKS_MAX: usize = 16;

/// The intake, with the versions its Python has told.
pub(crate) struct Graphs {
    intake: Intake,
    clock: Clock,
    versions: OnceLock<Value>,
}

impl Graphs {
    pub(crate) fn new(intake: Intake, clock: Clock) -> Graphs {
        Graphs { intake, clock, versions: OnceLock::new() }
    }

    /// The processes that run Python beside the scheduler.
    pub(crate) fn helpers(&self) -> &HelperPool {
        self.intake.helpers()
    }

    fn stimulus(&self) -> StimulusId {
        format!("update-graph-{}", self.clock.now()).into()
    }

    /// Materialises what a Python client submitted, and tells of the shuffles in it; a failure is an event too.
    pub(crate) async fn update_graph(&self, client: ClientId, update: UpdateGraph) -> (Event, Vec<BarrierFacts>) {
        let keys = update.keys.0.clone();
        match self.intake.materialize(client.clone(), update, self.stimulus()).await {
            Ok(graph) => {
                let facts = graph.barriers.into_iter().map(|(_, facts)| facts).collect();
                (Event::UpdateGraph(Box::new(graph.update)), facts)
            }
            Err(error) => {
                let error = error.to_error_info();
                error!(target: "distributed.scheduler", "Graph of {client} could not be materialised: {}", error.exception_text);
                (Event::UpdateGraphFailed { client, keys, error }, Vec::new())
            }
        }
    }

    /// Takes in a graph of native tasks.
    pub(crate) async fn update_native_graph(&self, client: ClientId, update: UpdateNativeGraph) -> Event {
        let keys = update.keys.0.clone();
        let (id, stimulus) = (client.clone(), self.stimulus());
        let taken = if update.tasks.len() <= INLINE_TASKS_MAX {
            take_native(id, update, stimulus)
        } else {
            let taken = tokio::task::spawn_blocking(move || take_native(id, update, stimulus)).await;
            taken.expect("native intake does not panic")
        };
        match taken {
            Ok(graph) => Event::UpdateGraph(Box::new(graph)),
            Err(error) => Event::UpdateGraphFailed { client, keys, error: error.to_error_info() },
        }
    }

    /// The versions of the helper's Python, if it was asked before.
    pub(crate) fn known_versions(&self) -> Option<Value> {
        self.versions.get().cloned()
    }

    /// The `versions` payload: the helper's, or our own when there is no Python.
    pub(crate) async fn versions(&self, packages: &[String]) -> Value {
        match self.intake.helpers().versions(packages).await {
            Ok(versions) => {
                if packages.is_empty() {
                    // Kept from the first answer; the helper's Python does not change.
                    let _ = self.versions.set(versions.clone());
                }
                versions
            }
            Err(error) => {
                warn!(target: "distributed.scheduler", "No versions of Python packages: {error}");
                own_versions()
            }
        }
    }
}
