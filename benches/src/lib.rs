//! Benchmarks of dask-rs. `cargo bench -p dask-benches` runs them all; they assert nothing.
