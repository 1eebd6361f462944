//! Prints the static order of a graph, to compare it with `dask.order`.
//!
//! Standard input: one JSON object, `{"key": {"needs": ["key", ...], "task": true}, ...}`. Output: the keys in order, as JSON.

use std::io::Read;

use dask_protocol::Key;
use dask_scheduler::graph::order::order;
use dask_scheduler::graph::topology::Topology;

#[derive(serde::Deserialize)]
struct Node {
    needs: Vec<String>,
    task: bool,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text)?;
    let nodes: indexmap::IndexMap<String, Node> = serde_json::from_str(&text)?;
    let keys: Vec<Key> = nodes.keys().map(|key| Key::from(key.as_str())).collect();
    let needs: Vec<Vec<Key>> =
        nodes.values().map(|node| node.needs.iter().map(|need| Key::from(need.as_str())).collect()).collect();
    let (topology, external) = Topology::of_keys(keys.iter().zip(needs.iter().map(Vec::as_slice)));
    let names: Vec<&Key> = keys.iter().chain(&external).collect();
    let started = std::time::Instant::now();
    let numbers = order(&topology, |node| nodes.get_index(node as usize).is_none_or(|(_, node)| node.task), &names)?;
    eprintln!("{} tasks ordered in {:.3} s", keys.len(), started.elapsed().as_secs_f64());
    let mut sequence: Vec<usize> = (0..keys.len()).collect();
    sequence.sort_by_key(|&task| numbers[task]);
    let sequence: Vec<String> = sequence.into_iter().map(|task| keys[task].to_string()).collect();
    println!("{}", serde_json::to_string(&sequence)?);
    Ok(())
}
