"""Modules preloaded by the scheduler and its workers, with arguments. Needs a cluster that was started with them."""

import os
import sys


def test_the_workers_have_loaded_their_modules(client, n_workers):
    marks = client.run(lambda dask_worker: dask_worker.preloaded_mark)
    assert list(marks.values()) == ["on-worker"] * n_workers
    assert client.submit(lambda: "preloaded" in sys.modules, pure=False).result(timeout=60)


def test_the_scheduler_has_loaded_its_modules(client):
    assert client.run_on_scheduler(lambda dask_scheduler: dask_scheduler.preloaded_mark) == "on-scheduler"


def test_the_nannies_have_loaded_their_modules(client, n_workers):
    marks = client.run(lambda dask_worker: dask_worker.preloaded_mark, nanny=True)
    assert list(marks.values()) == ["on-nanny"] * n_workers


def test_workers_have_the_environment_that_modules_of_their_nannies_made(client, n_workers):
    def look():
        return os.environ.get("DASK_TEST_OF_NANNY"), os.environ.get("DASK_TEST_INHERITED")

    assert list(client.run(look).values()) == [("set by nanny", "set in nanny")] * n_workers
