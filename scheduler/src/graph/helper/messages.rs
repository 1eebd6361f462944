//! What is asked of a helper and what it answers.

use bytes::Bytes;
use dask_protocol::message::ErrorInfo;
use dask_protocol::{Key, Payload, Value};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::HelperError;

/// A pickle and its out-of-band buffers.
pub type PickleFrames = (Bytes, Vec<Bytes>);

/// A graph to materialise, or only its annotations to evaluate.
#[derive(Debug, Clone, Copy)]
pub struct MaterializeRequest<'a> {
    /// The expression as the client serialised it, and its logical frames.
    pub expression: Option<(&'a Payload, &'a [Bytes])>,
    /// The pickled annotations for the whole graph.
    pub annotations: Option<&'a PickleFrames>,
    /// The keys wanted; for annotations alone, the keys to annotate.
    pub keys: &'a [Key],
}

impl MaterializeRequest<'_> {
    pub(super) fn materialize_frames(&self) -> Vec<Bytes> {
        self.frames("materialize")
    }

    pub(super) fn annotate_frames(&self) -> Vec<Bytes> {
        self.frames("annotate")
    }

    fn frames(&self, op: &str) -> Vec<Bytes> {
        let mut frames = vec![Bytes::new(), pack(&self.keys)];
        let mut body = vec![("op", Value::from(op)), ("keys", Value::Int(1))];
        if let Some((payload, logical)) = self.expression {
            body.push(("expression", Value::from(vec![frames.len(), logical.len()])));
            frames.push(payload.header().clone());
            frames.extend_from_slice(logical);
        }
        if let Some((pickle, buffers)) = self.annotations {
            body.push(("annotations", Value::from(vec![frames.len(), 1 + buffers.len()])));
            frames.push(pickle.clone());
            frames.extend_from_slice(buffers);
        }
        frames[0] = pack(&Value::map(body));
        frames
    }
}

fn pack(value: &impl serde::Serialize) -> Bytes {
    rmp_serde::to_vec_named(value).expect("plain values always pack").into()
}

/// A materialised graph.
#[derive(Debug)]
pub struct Materialized {
    /// One pickle of `{key: node}`, culled to the wanted keys.
    pub graph: PickleFrames,
    /// Annotations by position in that dict.
    pub annotations: Vec<AnnotationColumn>,
    /// The barriers of P2P shuffles in it.
    pub barriers: Vec<BarrierFacts>,
    /// Where the time went, for logs.
    pub seconds: Seconds,
}

/// Seconds spent in each step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
pub struct Seconds {
    /// Unpickling.
    pub load: f64,
    /// `__dask_graph__`, conversion and culling.
    pub materialize: f64,
    /// Pickling the result.
    pub pickle: f64,
}

/// One annotation: its name, its distinct values, and who has which.
#[derive(Debug, Clone, PartialEq)]
pub struct AnnotationColumn {
    /// Such as `priority`.
    pub name: String,
    /// Plain values, or pickled payloads.
    pub values: Vec<Value>,
    /// (position of the task, position of the value).
    pub entries: Vec<(u32, u32)>,
}

/// What placing the outputs of one P2P shuffle takes: partition `p` belongs on worker
/// `workers[workers.len() * index / count]` of the workers that may run the barrier.
#[derive(Debug, Clone, PartialEq)]
pub struct BarrierFacts {
    /// Position of the barrier task in the graph.
    pub task: usize,
    /// The shuffle's id.
    pub shuffle_id: String,
    /// Its number of partitions.
    pub count: u64,
    /// (partition, index) of every output partition; a partition is a number or a tuple.
    pub partitions: Vec<(Value, u64)>,
    /// Its pickled `ShuffleSpec`, without out-of-band buffers.
    pub spec: Bytes,
}

#[derive(Deserialize)]
struct Raised {
    exception: usize,
    #[serde(default)]
    traceback: Option<usize>,
    exception_text: String,
    traceback_text: String,
}

fn answer(what: impl std::fmt::Display) -> HelperError {
    HelperError::Answer(what.to_string())
}

fn frame(frames: &[Bytes], at: usize) -> Result<Bytes, HelperError> {
    frames.get(at).cloned().ok_or_else(|| answer(format_args!("it refers to frame {at} of {}", frames.len())))
}

/// The body of a reply, or the exception it carries.
fn read<T: DeserializeOwned>(frames: &[Bytes]) -> Result<T, HelperError> {
    #[derive(Deserialize)]
    struct Status {
        status: String,
    }
    let body = frame(frames, 0)?;
    let Status { status } = rmp_serde::from_slice(&body).map_err(answer)?;
    if status == "ok" {
        return rmp_serde::from_slice(&body).map_err(answer);
    }
    let raised: Raised = rmp_serde::from_slice(&body).map_err(answer)?;
    let traceback = raised.traceback.map(|at| frame(frames, at)).transpose()?;
    Err(HelperError::Raised(Box::new(ErrorInfo {
        exception: Value::Bin(frame(frames, raised.exception)?),
        traceback: traceback.map_or(Value::Nil, Value::Bin),
        exception_text: raised.exception_text.into(),
        traceback_text: raised.traceback_text.into(),
    })))
}

/// Name, marked values, entries: as `annotation_columns` in the script writes them.
type WrittenColumn = (String, Vec<(u8, Value)>, Vec<(u32, u32)>);

fn read_columns(written: Vec<WrittenColumn>) -> Result<Vec<AnnotationColumn>, HelperError> {
    const PLAIN: u8 = 0;
    const PICKLED: u8 = 1;
    let value = |marked| match marked {
        (PLAIN, value) => Ok(value),
        (PICKLED, Value::Bin(pickle)) => Ok(Value::Payload(Payload::pickled(pickle, Vec::new()))),
        (mark, _) => Err(answer(format_args!("an annotation value marked {mark}"))),
    };
    let column = |(name, values, entries): WrittenColumn| {
        let values = values.into_iter().map(value).collect::<Result<Vec<_>, _>>()?;
        if entries.iter().any(|&(_, at)| at as usize >= values.len()) {
            return Err(answer(format_args!("annotation {name} lacks a value")));
        }
        Ok(AnnotationColumn { name, values, entries })
    };
    written.into_iter().map(column).collect()
}

impl Materialized {
    pub(super) fn read(frames: &[Bytes]) -> Result<Materialized, HelperError> {
        #[derive(Deserialize)]
        struct Written {
            graph: (usize, usize),
            annotations: Vec<WrittenColumn>,
            barriers: Vec<WrittenBarrier>,
            seconds: Seconds,
        }
        #[derive(Deserialize)]
        struct WrittenBarrier {
            task: usize,
            shuffle_id: String,
            count: u64,
            partitions: Vec<(Value, u64)>,
            spec: usize,
        }
        let written: Written = read(frames)?;
        let (first, count) = written.graph;
        let mut graph = first
            .checked_add(count)
            .and_then(|end| frames.get(first..end))
            .ok_or_else(|| answer("the graph's frames are missing"))?
            .iter()
            .cloned();
        let pickle = graph.next().ok_or_else(|| answer("the graph is missing"))?;
        let barrier = |barrier: WrittenBarrier| {
            let WrittenBarrier { task, shuffle_id, count, partitions, spec } = barrier;
            Ok(BarrierFacts { task, shuffle_id, count, partitions, spec: frame(frames, spec)? })
        };
        Ok(Materialized {
            graph: (pickle, graph.collect()),
            annotations: read_columns(written.annotations)?,
            barriers: written.barriers.into_iter().map(barrier).collect::<Result<_, HelperError>>()?,
            seconds: written.seconds,
        })
    }
}

/// The reply to `annotate`.
pub(super) struct Annotated;

impl Annotated {
    pub(super) fn read(frames: &[Bytes]) -> Result<Vec<AnnotationColumn>, HelperError> {
        #[derive(Deserialize)]
        struct Written {
            annotations: Vec<WrittenColumn>,
        }
        read::<Written>(frames).and_then(|written| read_columns(written.annotations))
    }
}

/// The request for versions and its reply.
pub(super) struct Versions;

impl Versions {
    pub(super) fn frames(packages: &[String]) -> Vec<Bytes> {
        let packages = Value::Array(packages.iter().map(|name| Value::from(name.as_str())).collect());
        vec![pack(&Value::map([("op", Value::from("versions")), ("packages", packages)]))]
    }

    pub(super) fn read(frames: &[Bytes]) -> Result<Value, HelperError> {
        #[derive(Deserialize)]
        struct Written {
            versions: Value,
        }
        read::<Written>(frames).map(|written| written.versions)
    }
}

/// What Python code that asks for `dask_scheduler` is given.
pub(super) struct StandIn<'a> {
    /// Its attributes by name.
    pub(super) facts: &'a Value,
    /// Its `local_directory`.
    pub(super) directory: &'a std::path::Path,
}

impl StandIn<'_> {
    /// The body of a request. Facts come from other peers, so they may hold what cannot be told.
    fn body<'a>(
        &self,
        op: &'static str,
        fields: impl IntoIterator<Item = (&'a str, Value)>,
    ) -> Result<Bytes, HelperError> {
        let directory = self.directory.to_string_lossy().into_owned();
        let own = [("op", op.into()), ("facts", self.facts.clone()), ("directory", directory.into())];
        let body = Value::map(own.into_iter().chain(fields));
        let packed = rmp_serde::to_vec_named(&body);
        packed.map(Bytes::from).map_err(|error| HelperError::Environment(format!("facts that cannot be told: {error}")))
    }
}

/// The request to start a scheduler plugin, and its reply.
pub(super) struct StartPlugin;

impl StartPlugin {
    pub(super) fn frames(plugin: Bytes, stand_in: &StandIn<'_>) -> Result<Vec<Bytes>, HelperError> {
        Ok(vec![stand_in.body("start_plugin", [("plugin", Value::Int(1))])?, plugin])
    }

    pub(super) fn read(frames: &[Bytes]) -> Result<(), HelperError> {
        #[derive(Deserialize)]
        struct Written {}
        read::<Written>(frames).map(|Written {}| ())
    }
}

/// The request to write a dump of the cluster, and its reply.
pub(super) struct WriteDump;

impl WriteDump {
    pub(super) fn frames(url: &str, format: Value, options: Value, state: Value) -> Result<Vec<Bytes>, HelperError> {
        let fields = [("op", "write_dump".into()), ("url", url.into()), ("format", format), ("options", options)];
        let untold = |error| HelperError::Environment(format!("a dump that cannot be told: {error}"));
        let body = pack(&Value::map(fields.into_iter().chain([("state", Value::Int(1))])));
        Ok(vec![body, rmp_serde::to_vec_named(&state).map(Bytes::from).map_err(untold)?])
    }

    pub(super) fn read(frames: &[Bytes]) -> Result<(), HelperError> {
        #[derive(Deserialize)]
        struct Written {}
        read::<Written>(frames).map(|Written {}| ())
    }
}
