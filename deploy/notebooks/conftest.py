"""Tests of notebooks and of JupyterLab with dask's extension. `.ci/run notebooks` runs them."""

import pytest
from dask_rs import LocalCluster


@pytest.fixture(scope="session")
def cluster():
    with LocalCluster(n_workers=2, threads_per_worker=1, memory_limit="1GiB", dashboard_address="127.0.0.1:0") as cluster:
        yield cluster
