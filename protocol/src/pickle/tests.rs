//! The recorded graphs of `tests/data/make_pickles.py`: read, split, read again, damaged.

use std::collections::HashMap;
use std::path::PathBuf;

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::arena::{Arena, Effect, Node, NodeId};
use super::{Graph, GraphTask, Intake, PickleError, loads_plain, read_expression, read_task_dict, reader};
use crate::key::Key;

struct Recorded {
    name: String,
    pickle: Bytes,
    buffers: Vec<Bytes>,
    expected: Json,
}

impl Recorded {
    fn all() -> Vec<Recorded> {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/graphs");
        let mut all = Vec::new();
        for entry in std::fs::read_dir(folder).expect("the recorded graphs are in the tree") {
            let path = entry.expect("readable").path();
            if path.extension().is_some_and(|extension| extension == "pkl") {
                let json = std::fs::read(path.with_extension("json")).expect("each graph has a description");
                all.push(Recorded {
                    name: path.file_stem().expect("a file").to_string_lossy().into_owned(),
                    pickle: std::fs::read(&path).expect("readable").into(),
                    buffers: split_buffers(&std::fs::read(path.with_extension("buffers")).unwrap_or_default()),
                    expected: serde_json::from_slice(&json).expect("valid"),
                });
            }
        }
        all.sort_by(|a, b| a.name.cmp(&b.name));
        assert!(all.len() > 20, "the recorded graphs are in the tree");
        all
    }

    fn is_expression(&self) -> bool {
        self.expected["mode"] == "expression" || self.expected["mode"] == "python"
    }
}

fn split_buffers(mut bytes: &[u8]) -> Vec<Bytes> {
    let mut buffers = Vec::new();
    while let Some((len, rest)) = bytes.split_first_chunk() {
        let (buffer, rest) = rest.split_at(u32::from_le_bytes(*len) as usize);
        buffers.push(Bytes::copy_from_slice(buffer));
        bytes = rest;
    }
    buffers
}

fn read(pickle: &Bytes, buffers: &[Bytes], expression: bool) -> Result<Intake, PickleError> {
    if expression { read_expression(pickle, buffers) } else { read_task_dict(pickle, buffers).map(Intake::Graph) }
}

fn described(task: &GraphTask) -> Json {
    let mut dependencies: Vec<&Key> = task.dependencies.iter().collect();
    dependencies.sort_by_key(|key| key.to_string());
    json!({
        "key": task.key,
        "dependencies": dependencies,
        "class": format!("{:?}", task.class),
        "data_producer": task.data_producer,
    })
}

#[test]
fn recorded_graphs_are_read_as_dask_describes_them() {
    for graph in Recorded::all() {
        let name = &graph.name;
        match read(&graph.pickle, &graph.buffers, graph.is_expression()) {
            Ok(Intake::Graph(split)) => {
                let found: Vec<Json> = split.tasks.iter().map(described).collect();
                assert_eq!(Json::Array(found), graph.expected["tasks"], "{name}");
            }
            Ok(Intake::NeedsPython(reason)) => assert_eq!(graph.expected["mode"], "python", "{name}: {reason}"),
            Err(error) => panic!("{name}: {error}"),
        }
    }
}

#[test]
fn tasks_that_share_a_function_share_its_bytes() {
    let all = Recorded::all();
    let graph = all.iter().find(|graph| graph.name == "shared_function").expect("recorded");
    let Ok(Intake::Graph(split)) = read(&graph.pickle, &graph.buffers, true) else { panic!("it splits") };
    let prefixes: Vec<&[u8]> = split.tasks[..300].iter().map(|task| task.spec.prefix()).collect();
    assert!(prefixes.iter().all(|prefix| prefix.as_ptr() == prefixes[0].as_ptr()));
    assert!(prefixes[0].len() > 400);
    assert!(split.tasks[..300].iter().all(|task| task.spec.body().len() < 60));
}

#[test]
fn tasks_carry_only_the_buffers_they_use() {
    let all = Recorded::all();
    let graph = all.iter().find(|graph| graph.name == "numpy_buffers").expect("recorded");
    let Ok(Intake::Graph(split)) = read(&graph.pickle, &graph.buffers, true) else { panic!("it splits") };
    assert_eq!(graph.buffers.len(), 41);
    assert!(split.tasks[..20].iter().all(|task| task.spec.buffers().len() == 2));
    assert!(split.tasks[20..].iter().all(|task| task.spec.buffers().len() == 1));
}

#[test]
fn no_expression_is_an_empty_graph() {
    for pickle in [&b""[..], b"\x80\x05}."] {
        let intake = read_expression(&Bytes::from_static(pickle), &[]);
        assert!(matches!(intake, Ok(Intake::Graph(Graph { tasks })) if tasks.is_empty()));
    }
}

/// Whether two nodes of two arenas stand for the same object: same parts, same changes, same sharing.
struct Comparison<'a> {
    arenas: [&'a Arena; 2],
    buffers: [&'a [Bytes]; 2],
    forth: HashMap<NodeId, NodeId>,
    back: HashMap<NodeId, NodeId>,
    todo: Vec<(NodeId, NodeId)>,
}

impl Comparison<'_> {
    fn same(mut self, a: NodeId, b: NodeId) -> bool {
        self.todo.push((a, b));
        while let Some((a, b)) = self.todo.pop() {
            match (self.forth.get(&a), self.back.get(&b)) {
                (Some(&known), Some(&back)) if known == b && back == a => continue,
                (None, None) => {}
                _ if self.is_value(a) => {}
                _ => return false,
            }
            self.forth.insert(a, b);
            self.back.insert(b, a);
            if !self.same_node(a, b) {
                return false;
            }
        }
        true
    }

    /// Numbers and the like have no identity that a pickle keeps.
    fn is_value(&self, a: NodeId) -> bool {
        let arena = self.arenas[0];
        match arena.node(a) {
            Node::None | Node::True | Node::False | Node::Int(_) | Node::Float(_) => true,
            Node::Tuple(items) => arena.children(items).is_empty(),
            _ => false,
        }
    }

    fn same_node(&mut self, a: NodeId, b: NodeId) -> bool {
        let [left, right] = self.arenas;
        let same = match (left.node(a), right.node(b)) {
            (Node::Str(_) | Node::Name(_), Node::Str(y)) => match left.node(a) {
                Node::Str(x) => left.bytes(x) == right.bytes(y),
                _ => left.str(a) == right.str(b),
            },
            (Node::Bytes(x), Node::Bytes(y))
            | (Node::Raw(x), Node::Raw(y))
            | (Node::ByteArray(x), Node::ByteArray(y)) => left.bytes(x) == right.bytes(y),
            (Node::Float(x), Node::Float(y)) => x.to_bits() == y.to_bits(),
            (Node::Buffer(x), Node::Buffer(y)) => {
                self.buffers[0][x as usize].as_ptr() == self.buffers[1][y as usize].as_ptr()
            }
            (x, y) if std::mem::discriminant(&x) == std::mem::discriminant(&y) => !matches!(x, Node::Int(_)) || x == y,
            _ => false,
        };
        let kinds = |arena: &Arena, id| {
            arena.effects(id).map(|effect: Effect| std::mem::discriminant(&effect)).collect::<Vec<_>>()
        };
        let mut parts = [Vec::new(), Vec::new()];
        left.push_references(a, &mut parts[0]);
        right.push_references(b, &mut parts[1]);
        self.todo.extend(parts[0].iter().copied().zip(parts[1].iter().copied()));
        same && kinds(left, a) == kinds(right, b) && parts[0].len() == parts[1].len()
    }
}

/// Checks that what each task of a helper's dict became means what it meant in the whole.
fn check_meaning(pickle: &Bytes, buffers: &[Bytes], graph: &Graph) {
    let whole = reader::read(pickle, buffers.len()).expect("it was read before");
    let entries = whole.dict_items(whole.root).expect("it was a dict before");
    let mut keys = super::task_node::TaskReader::new(&whole);
    let last: HashMap<Key, NodeId> =
        entries.chunks_exact(2).map(|entry| (keys.key(entry[0]).expect("it was a key before"), entry[1])).collect();
    for task in &graph.tasks {
        let part = reader::read(&task.spec.pickle(), task.spec.buffers().len()).expect("a written pickle is readable");
        let comparison = Comparison {
            arenas: [&whole, &part],
            buffers: [buffers, task.spec.buffers()],
            forth: HashMap::new(),
            back: HashMap::new(),
            todo: Vec::new(),
        };
        assert!(comparison.same(last[&task.key], part.root), "{:?}", task.key);
    }
}

#[test]
fn every_task_means_the_same_on_its_own() {
    for graph in Recorded::all().iter().filter(|graph| !graph.is_expression()) {
        let split = read_task_dict(&graph.pickle, &graph.buffers).expect("it splits");
        check_meaning(&graph.pickle, &graph.buffers, &split);
    }
}

/// One way to damage a pickle.
#[derive(Debug, Clone)]
enum Damage {
    Set(usize, u8),
    Cut(usize, usize),
    Repeat(usize, usize, usize),
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        4 => (any::<usize>(), any::<u8>()).prop_map(|(at, byte)| Damage::Set(at, byte)),
        // An opcode in place of another.
        4 => (any::<usize>(), prop::sample::select(&b"(.012NRabcdeghlopqrstu})]\x81\x85\x86\x87\x8f\x90\x91\x92\x93\x94\x97\x98"[..]))
            .prop_map(|(at, byte)| Damage::Set(at, byte)),
        1 => (any::<usize>(), 1..20usize).prop_map(|(at, len)| Damage::Cut(at, len)),
        1 => (any::<usize>(), any::<usize>(), 1..60usize).prop_map(|(from, to, len)| Damage::Repeat(from, to, len)),
    ]
}

fn damaged(pickle: &[u8], damages: Vec<Damage>) -> Bytes {
    let mut bytes = pickle.to_vec();
    for damage in damages {
        let len = bytes.len();
        match damage {
            Damage::Set(at, byte) => bytes[at % len] = byte,
            Damage::Cut(at, cut) => drop(bytes.drain(at % len..(at % len + cut).min(len - 1).max(at % len))),
            Damage::Repeat(from, to, count) => {
                let piece = bytes[from % len..(from % len + count).min(len)].to_vec();
                bytes.splice(to % len..to % len, piece);
            }
        }
    }
    bytes.into()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_pickles_are_errors_or_mean_what_they_say(
        which in any::<prop::sample::Index>(),
        damages in prop::collection::vec(damage(), 1..4),
    ) {
        thread_local!(static ALL: Vec<Recorded> = Recorded::all());
        ALL.with(|all| {
            let graph = which.get(all);
            let pickle = damaged(&graph.pickle, damages);
            let _plain = loads_plain(&pickle, &graph.buffers);
            let _intake = read_expression(&pickle, &graph.buffers);
            if let Ok(split) = read_task_dict(&pickle, &graph.buffers) {
                check_meaning(&pickle, &graph.buffers, &split);
            }
        });
    }

    #[test]
    fn garbage_is_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let pickle = Bytes::from(bytes);
        let _plain = loads_plain(&pickle, &[]);
        let _graph = read_task_dict(&pickle, &[]);
    }
}
