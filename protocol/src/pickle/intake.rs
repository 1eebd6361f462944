//! From the pickle a client submits, or the graph helper returns, to tasks.

use bytes::Bytes;

use super::error::PickleError;
use super::graph::Graph;

/// What became of a submitted expression.
#[derive(Debug, Clone)]
pub enum Intake {
    /// The tasks, split without any Python.
    Graph(Graph),
    /// The expression must be materialised by the graph helper; the text says why.
    NeedsPython(String),
}

/// Splits the expression of an `update-graph` message.
///
/// `LLGExpr` (from `submit` and `Client.get`) and `_MapExpr` (from `map`) become graphs; every other expression, and
/// whatever is unusual within these, needs Python. An empty pickle or an empty dict is an empty graph.
///
/// # Errors
/// [`PickleError`] when the bytes are malformed or over a limit.
pub fn read_expression(pickle: &Bytes, _buffers: &[Bytes]) -> Result<Intake, PickleError> {
    if pickle.is_empty() {
        return Ok(Intake::Graph(Graph::default()));
    }
    Ok(Intake::NeedsPython("expressions are not split natively yet".to_owned()))
}

/// Splits what the graph helper returns: one pickle of `{key: node}` with new-style nodes only.
///
/// # Errors
/// [`PickleError`] when the bytes are malformed, over a limit, or hold anything but such a dict.
pub fn read_task_dict(_pickle: &Bytes, _buffers: &[Bytes]) -> Result<Graph, PickleError> {
    Err(PickleError::unsupported("task dicts are not split yet"))
}
