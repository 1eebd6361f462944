//! What the scheduler makes of a graph, asked before it is sent.

use dask_client::{GraphBuilder, GraphError};
use dask_protocol::Key;
use dask_scheduler::graph::topology::Topology;

/// The order in which the scheduler would start the tasks of a graph if it had one thread (`dask.order`): such that results
/// are needed for a short time only.
///
/// # Errors
/// [`GraphError::Cycle`] when tasks wait for each other in a circle.
pub fn static_order(graph: &GraphBuilder) -> Result<Vec<Key>, GraphError> {
    let tasks = graph.dependencies()?;
    let keys: Vec<&Key> = tasks.iter().map(|(key, _)| key).collect();
    let (topology, _outside) = Topology::of_keys(tasks.iter().map(|(key, reads)| (key, reads.as_slice())));
    let order = dask_scheduler::graph::order::order(&topology, |_| true, &keys).map_err(|_| {
        // The builder has looked for cycles already and names them better.
        GraphError::Cycle { keys: Vec::new() }
    })?;
    let mut placed: Vec<(u32, Key)> = order.into_iter().zip(keys.into_iter().cloned()).collect();
    placed.sort_by_key(|(place, _)| *place);
    Ok(placed.into_iter().map(|(_, key)| key).collect())
}

#[cfg(test)]
mod tests {
    use dask_client::{IntoArg, Node, TaskCall};

    use super::*;

    fn call(name: &'static str, reads: &[&Node<i64>]) -> TaskCall<i64> {
        TaskCall::new(name, reads.iter().map(|node| IntoArg::<i64>::into_arg(*node)).collect())
    }

    #[test]
    fn a_branch_is_finished_before_the_next_begins() {
        let mut graph = GraphBuilder::new("g");
        let a = graph.add(call("a", &[])).expect("new");
        let b = graph.add(call("b", &[])).expect("new");
        let a2 = graph.add(call("a2", &[&a])).expect("new");
        let b2 = graph.add(call("b2", &[&b])).expect("new");
        let end = graph.add(call("end", &[&a2, &b2])).expect("new");
        let order = static_order(&graph).expect("no cycle");
        let at = |node: &Node<i64>| order.iter().position(|key| key == node.key()).expect("in it");
        assert_eq!(at(&a).abs_diff(at(&a2)), 1, "{order:?}");
        assert_eq!(at(&b).abs_diff(at(&b2)), 1, "{order:?}");
        assert_eq!(at(&end), 4);
    }
}
