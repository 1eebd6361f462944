//! The way of an `update-graph` message to the tasks the state machine takes.
//!
//! ```text
//! expr_ser --- split natively (submit, map, get) ------------.
//!      `------ graph helper: materialise --- split natively --+-- cull -- order -- annotate --> UpdateGraph
//! ```
//!
//! All of it runs beside the driver; what takes more than a moment of CPU runs on a thread for blocking work.

mod annotations;
mod assemble;
mod error;
mod fields;
mod native;
mod timedelta;

use std::time::Instant;

use bytes::Bytes;
use dask_protocol::message::{StimulusId, UpdateGraph as UpdateGraphMessage};
use dask_protocol::pickle::{Graph, Intake as Split, NodeClass, read_expression, read_task_dict};
use dask_protocol::{Key, Payload, Value};
use tracing::debug;

use self::annotations::Table;
use self::assemble::{Node, assemble, nodes};
pub use self::error::IntakeError;
use self::fields::{GlobalAnnotations, Settled};
pub use self::native::take_native;
pub use self::timedelta::parse_timedelta;
use super::helper::{AnnotationColumn, BarrierFacts, HelperOptions, HelperPool, MaterializeRequest};
use crate::state::{ClientId, UpdateGraph};

/// An expression up to this many bytes is split on the calling thread: some ten tasks, a fraction of a millisecond.
const INLINE_BYTES_MAX: usize = 4 * 1024;

/// The intake pipeline. Cloning gives another handle to the same helpers.
#[derive(Debug, Clone)]
pub struct Intake {
    helpers: HelperPool,
}

/// A graph ready for the state, and what the shell wants to know about it.
#[derive(Debug)]
pub struct MaterializedGraph {
    /// For the state.
    pub update: UpdateGraph,
    /// The P2P shuffles in it, by barrier key.
    pub barriers: Vec<(Key, BarrierFacts)>,
    /// Source code around the submission, for display; nil if there is none.
    pub code: Value,
    /// About the collections submitted, for display; nil if there is nothing.
    pub span_metadata: Value,
    /// Seconds until the tasks were known.
    pub materialization_seconds: f64,
    /// Seconds for culling, ordering and annotating.
    pub ordering_seconds: f64,
}

/// Nodes, and what was found out with them.
#[derive(Default)]
struct Nodes {
    nodes: Vec<Node>,
    columns: Vec<AnnotationColumn>,
    barriers: Vec<(Key, BarrierFacts)>,
}

impl Intake {
    /// An intake whose helpers are found as `options` say, when they are needed.
    pub fn new(options: HelperOptions) -> Intake {
        Intake { helpers: HelperPool::new(options) }
    }

    /// The Python helpers, for what else needs the client's Python: `versions`.
    pub fn helpers(&self) -> &HelperPool {
        &self.helpers
    }

    /// Takes in the graph of a Python client. Dropping the future gives the graph up.
    ///
    /// # Errors
    /// [`IntakeError`]: `to_error_info()` is the exception for every requested key.
    pub async fn materialize(
        &self,
        client: ClientId,
        message: UpdateGraphMessage,
        stimulus_id: StimulusId,
    ) -> Result<MaterializedGraph, IntakeError> {
        let started = Instant::now();
        let settled = settle(&message)?;
        let general = GlobalAnnotations::read(&message.annotations)?;
        let Nodes { nodes, columns, barriers } = self.nodes(&message.expr_ser, &general, &settled).await?;
        let materialized = Instant::now();
        let small = nodes.len() * 128 <= INLINE_BYTES_MAX;
        let (fifo_timeout, keys) = (settled.fifo_timeout, settled.keys.clone());
        let tasks = compute(small, move || {
            let general = match &general {
                GlobalAnnotations::Plain(entries) => entries.as_slice(),
                GlobalAnnotations::NeedPython(_) => &[],
            };
            let table = Table::new(general, &columns, nodes.len(), settled.user_priority)?;
            assemble(nodes, &table, &settled)
        })
        .await?;
        let finished = Instant::now();
        debug!(%client, tasks = tasks.len(), seconds = (finished - started).as_secs_f64(), "graph taken in");
        Ok(MaterializedGraph {
            update: UpdateGraph {
                client,
                tasks,
                keys,
                submitting_task: message.submitting_task,
                fifo_timeout,
                stimulus_id,
            },
            barriers,
            code: fields::read_display(&message.code),
            span_metadata: fields::read_display(&message.span_metadata),
            materialization_seconds: (materialized - started).as_secs_f64(),
            ordering_seconds: (finished - materialized).as_secs_f64(),
        })
    }

    async fn nodes(
        &self,
        expression: &Value,
        general: &GlobalAnnotations,
        settled: &Settled,
    ) -> Result<Nodes, IntakeError> {
        let payload = match expression {
            Value::Map(entries) if entries.is_empty() => return Ok(Nodes::default()),
            Value::Payload(payload) => payload,
            other => return Err(IntakeError::field("expr_ser", "a serialised expression", other)),
        };
        match split_natively(payload).await {
            Ok(graph) => {
                let columns = self.evaluate(general, &graph).await?;
                Ok(Nodes { nodes: nodes(graph), columns, barriers: Vec::new() })
            }
            Err(reason) => {
                debug!(reason, "graph needs Python");
                self.materialize_in_python(payload, general, settled).await
            }
        }
    }

    /// Annotations of a native graph that are functions of the key, or other objects.
    async fn evaluate(&self, general: &GlobalAnnotations, graph: &Graph) -> Result<Vec<AnnotationColumn>, IntakeError> {
        match general {
            GlobalAnnotations::Plain(_) => Ok(Vec::new()),
            GlobalAnnotations::NeedPython(frames) => {
                let keys: Vec<Key> = graph.tasks.iter().map(|task| task.key.clone()).collect();
                let request = MaterializeRequest { expression: None, annotations: Some(frames), keys: &keys };
                Ok(self.helpers.annotate(&request).await?)
            }
        }
    }

    async fn materialize_in_python(
        &self,
        payload: &Payload,
        general: &GlobalAnnotations,
        settled: &Settled,
    ) -> Result<Nodes, IntakeError> {
        let logical = payload
            .logical_frames()
            .map_err(|error| IntakeError::Pickle(format!("the expression's frames are malformed: {error}")))?;
        let annotations = match general {
            GlobalAnnotations::Plain(_) => None,
            GlobalAnnotations::NeedPython(frames) => Some(frames),
        };
        let request = MaterializeRequest { expression: Some((payload, &logical)), annotations, keys: &settled.keys };
        let materialized = self.helpers.materialize(&request).await?;
        debug!(seconds = ?materialized.seconds, "graph materialised");
        let (pickle, buffers) = materialized.graph;
        let graph = compute(false, move || read_task_dict(&pickle, &buffers)).await;
        let graph = graph.map_err(|error| IntakeError::pickle(&error))?;
        let barrier = |facts: BarrierFacts| Some((graph.tasks.get(facts.task)?.key.clone(), facts));
        let barriers = materialized.barriers.into_iter().filter_map(barrier).collect();
        Ok(Nodes { barriers, columns: materialized.annotations, nodes: nodes(graph) })
    }
}

fn settle(message: &UpdateGraphMessage) -> Result<Settled, IntakeError> {
    let mut keys = message.keys.0.clone();
    let mut seen: std::collections::HashSet<Key, rustc_hash::FxBuildHasher> = Default::default();
    keys.retain(|key| seen.insert(key.clone()));
    let fifo_timeout = match &message.fifo_timeout {
        Value::Nil => 0.0,
        value => parse_timedelta(value).ok_or_else(|| IntakeError::field("fifo_timeout", "a duration", value))?,
    };
    Ok(Settled {
        actors: fields::actors(&message.actors, &keys)?,
        keys,
        internal_priority: message.internal_priority.as_ref().map(|pairs| pairs.0.clone()).filter(|p| !p.is_empty()),
        fifo_timeout,
        user_priority: message.user_priority.unwrap_or(0.0),
    })
}

/// The tasks of an expression that needs no Python, or why it does.
async fn split_natively(payload: &Payload) -> Result<Graph, String> {
    let (pickle, buffers) = fields::pickle_frames(payload).ok_or("it is no pickle")?;
    let size = pickle.len() + buffers.iter().map(Bytes::len).sum::<usize>();
    match compute(size <= INLINE_BYTES_MAX, move || read_expression(&pickle, &buffers)).await {
        Ok(Split::Graph(graph)) if graph.tasks.iter().any(|task| task.class == NodeClass::P2PBarrier) => {
            Err("it has a P2P barrier, whose facts only Python can tell".to_owned())
        }
        Ok(Split::Graph(graph)) => Ok(graph),
        Ok(Split::NeedsPython(reason)) => Err(reason),
        // What this reader cannot read Python may well be able to.
        Err(error) => Err(error.to_string()),
    }
}

/// Runs `work` here if it is `small`, else on a thread for blocking work.
async fn compute<T: Send + 'static>(small: bool, work: impl FnOnce() -> T + Send + 'static) -> T {
    if small {
        return work();
    }
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => std::future::pending().await, // cancelled: the runtime is shutting down
        },
    }
}

#[cfg(test)]
mod tests;
