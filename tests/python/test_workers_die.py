"""Tasks that take their worker's process with them. Needs workers with nannies."""

import os

import pytest
from distributed.scheduler import KilledWorker


def kill_own_process():
    os._exit(9)


def slow_inc(x):
    import time

    time.sleep(0.01)
    return x + 1


def test_a_task_that_kills_its_process_ends_in_killed_worker(client):
    bad = client.submit(kill_own_process, pure=False)
    with pytest.raises(KilledWorker, match="kill_own_process"):
        bad.result(timeout=120)
    others = client.map(slow_inc, range(200), pure=False)
    assert client.gather(others) == list(range(1, 201))
