"""Fixtures for the tests of an unmodified `dask.distributed` client against a running cluster.

The cluster is started by the Rust test that runs these; its address is in DASK_TEST_SCHEDULER and the number of
workers in DASK_TEST_WORKERS.
"""

import os

import pytest
from distributed import Client


@pytest.fixture(scope="session")
def address():
    return os.environ["DASK_TEST_SCHEDULER"]


@pytest.fixture(scope="session")
def n_workers():
    return int(os.environ.get("DASK_TEST_WORKERS", "2"))


@pytest.fixture
def client(address, n_workers):
    with Client(address, timeout="20s") as client:
        client.wait_for_workers(n_workers, timeout=60)
        yield client
