//! Copies of results and workers that go, as a Python client sees it.

use dask_tests::cluster::{Cluster, WorkerKind};

#[test]
fn data_survives_the_memory_manager_rebalancing_and_retirement() {
    let cluster = Cluster::start(&[WorkerKind::Ours, WorkerKind::Upstream, WorkerKind::Ours], &[]);
    cluster.pytest(&["test_data.py"]);
}
