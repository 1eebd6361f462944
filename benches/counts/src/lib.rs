//! The paths that every task takes, prepared so that they can be run alone: [`paths`] lists them, the binary `dask-counts`
//! runs one of them under callgrind (`benches/counts/check.py`), and the criterion benches time them.
//!
//! This crate knows the protocol and the scheduler only, and its binary uses the system's allocator: valgrind does not get
//! along with mimalloc, and a small crate is built in a moment.

pub mod codec;
pub mod graphs;
pub mod life;
pub mod stealing;

/// What is counted: prepared, then run once.
pub type Prepared = Box<dyn FnOnce()>;

/// A path: its name, and what prepares it.
pub type Path = (&'static str, fn() -> Prepared);

/// All of them.
pub fn paths() -> Vec<Path> {
    vec![
        ("pack-compute-task", || prepared(codec::compute_tasks(), |batch| codec::pack(&batch))),
        ("read-compute-task", || prepared(codec::pack(&codec::compute_tasks()), |it| codec::read_by_worker(&it))),
        ("pack-task-finished", || prepared(codec::tasks_finished(), |batch| codec::pack(&batch))),
        ("read-task-finished", || prepared(codec::pack(&codec::tasks_finished()), |it| codec::read_by_scheduler(&it))),
        ("split-map", || prepared(graphs::MAP, graphs::split)),
        ("split-dict", || prepared(graphs::DICT, graphs::split)),
        ("order", || prepared(graphs::Ordered::new(30), |graph| graph.order())),
        ("life-noop", || lived(10, life::noop(1_000))),
        ("life-tree", || lived(100, life::tree(1_000))),
        ("life-all-to-all", || lived(100, life::all_to_all(30))),
        ("steal", || prepared(stealing::Unbalanced::new(50, 500), stealing::Unbalanced::balance)),
    ]
}

fn prepared<T: 'static, R: 'static>(input: T, run: impl FnOnce(T) -> R + 'static) -> Prepared {
    Box::new(move || drop(std::hint::black_box(run(std::hint::black_box(input)))))
}

fn lived(workers: usize, (tasks, keys): life::Graph) -> Prepared {
    let mut cluster = life::Cluster::new(workers);
    Box::new(move || cluster.live(tasks, keys))
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_path_runs_and_has_a_name_of_its_own() {
        let paths = super::paths();
        let names: std::collections::BTreeSet<_> = paths.iter().map(|(name, _)| name).collect();
        assert_eq!(names.len(), paths.len());
        for (_, prepare) in paths {
            prepare()();
        }
    }
}
