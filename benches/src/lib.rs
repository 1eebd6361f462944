//! Benchmarks of dask-rs. `cargo bench -p dask-benches` runs the criterion benches; they assert nothing. `dask-sim` runs
//! graphs on simulated clusters, and compares policies (see [`sim`]) and static orders (see [`order`]). `dask-bench` measures real clusters beside upstream's (see [`harness`]).

pub mod harness;
pub mod order;
pub mod sim;
