//! The graphs that policies are compared on: what dask's collections make of common work, with durations and sizes as
//! people report them (chunks of 16 to 128 MB, tasks of 50 ms to 2 s).

mod arrays;
mod frames;
mod linear;
mod plain;

use super::workload::{Builder, Workload};

/// A megabyte.
const MB: u64 = 1_000_000;
/// A result that is a number or a few.
const SMALL: u64 = 1_000;

/// A kind of graph.
#[derive(Debug)]
pub struct Graph {
    /// Its name on the command line and in tables.
    pub name: &'static str,
    /// What it stands for.
    pub about: &'static str,
    build: fn(&mut Builder),
}

impl Graph {
    /// The workload, with durations by `seed`.
    pub fn build(&self, seed: u64) -> Workload {
        let mut builder = Builder::new(seed);
        (self.build)(&mut builder);
        builder.build(self.name)
    }

    /// The graph of this name.
    pub fn find(name: &str) -> Option<&'static Graph> {
        ALL.iter().find(|graph| graph.name == name)
    }
}

/// Every graph.
pub static ALL: &[Graph] = &[
    Graph { name: "map", about: "independent tasks", build: plain::map },
    Graph { name: "chains", about: "independent chains of ten", build: plain::chains },
    Graph { name: "map-reduce", about: "chains of four, then a tree", build: plain::map_reduce },
    Graph { name: "waves", about: "six graphs, a few seconds apart", build: plain::waves },
    Graph { name: "folds", about: "grid search over shared folds", build: plain::folds },
    Graph { name: "sum", about: "x.sum()", build: arrays::sum },
    Graph { name: "pairs", about: "(a + b).sum()", build: arrays::pairs },
    Graph { name: "mean-axis", about: "x.mean(axis=0), large partial results", build: arrays::mean_axis },
    Graph { name: "transpose-add", about: "(x + x.T).sum()", build: arrays::transpose_add },
    Graph { name: "rechunk", about: "rows to columns in one step", build: arrays::rechunk },
    Graph { name: "overlap", about: "a rolling window over neighbours", build: arrays::overlap },
    Graph { name: "stencil", about: "time steps that exchange borders", build: arrays::stencil },
    Graph { name: "climatology", about: "anomalies from a mean per group", build: arrays::climatology },
    Graph { name: "store", about: "load, compute, store; more data than memory", build: arrays::store },
    Graph { name: "vorticity", about: "two fields, borders and products", build: arrays::vorticity },
    Graph { name: "matmul", about: "blocked matrix product", build: linear::matmul },
    Graph { name: "svd", about: "tall and skinny QR, then products", build: linear::svd },
    Graph { name: "cholesky", about: "tiled Cholesky factorisation", build: linear::cholesky },
    Graph { name: "groupby", about: "aggregation by key", build: frames::groupby },
    Graph { name: "shuffle", about: "task-based shuffle in two stages", build: frames::shuffle },
    Graph { name: "join", about: "two shuffles, merged", build: frames::join },
    Graph { name: "broadcast", about: "a small table joined to every partition", build: frames::broadcast },
];
