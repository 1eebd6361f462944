"""Modules preloaded by the scheduler and its workers, with arguments. Needs a cluster that was started with them."""

import sys


def test_the_workers_have_loaded_their_modules(client, n_workers):
    marks = client.run(lambda dask_worker: dask_worker.preloaded_mark)
    assert list(marks.values()) == ["on-worker"] * n_workers
    assert client.submit(lambda: "preloaded" in sys.modules, pure=False).result(timeout=60)


def test_the_scheduler_has_loaded_its_modules(client):
    assert client.run_on_scheduler(lambda dask_scheduler: dask_scheduler.preloaded_mark) == "on-scheduler"
