"""Copies of results: made, dropped, moved, and handed over by workers that go. The last test takes a worker away."""

import operator
import pickle
import time

import pytest
from distributed import wait


def make(i, directory):
    with open(f"{directory}/{i}", "a") as runs:
        runs.write("ran\n")
    return bytes(1000) + bytes([i % 256])


def until(holds):
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def copies(client, futures):
    return [len(holders) for holders in client.who_has(futures).values()]


@pytest.fixture
def made(client, tmp_path):
    futures = client.map(make, range(30), directory=str(tmp_path), pure=False)
    wait(futures, timeout=60)
    yield futures
    values = client.gather(futures)
    assert [value[-1] for value in values] == list(range(30))
    runs = [len(path.read_text().split()) for path in tmp_path.iterdir()]
    assert runs == [1] * 30, "nothing was computed twice"


def test_replicas_are_made_and_the_memory_manager_drops_them(client, made, n_workers):
    client.amm.stop()
    assert client.amm.running() is False
    client.replicate(made, n=2)
    assert copies(client, made) == [2] * 30
    client.amm.run_once()
    until(lambda: copies(client, made) == [1] * 30)
    client.replicate(made)
    assert copies(client, made) == [n_workers] * 30
    client.amm.start()
    assert client.amm.running() is True
    until(lambda: copies(client, made) == [1] * 30)


def test_rebalance_loses_nothing(client, made):
    client.rebalance(made)
    assert min(copies(client, made)) >= 1


def test_workers_to_close_come_in_groups_and_by_attribute(client, n_workers):
    def to_close(**kwargs):
        return list(client.sync(client.scheduler.workers_to_close, **kwargs))

    addresses = set(client.scheduler_info(n_workers=-1)["workers"])
    names = {worker["name"] for worker in client.scheduler_info(n_workers=-1)["workers"].values()}
    assert len(to_close(n=1)) == 1 and set(to_close(n=1)) <= addresses
    assert set(to_close(n=n_workers, attribute="name")) == names
    # All run on one host, so they go together or not at all.
    by_host = pickle.dumps(operator.attrgetter("host"))
    assert to_close(n=1, key=by_host) == []
    assert set(to_close(n=n_workers, key=by_host)) == addresses
    assert to_close(n=0) == [] and to_close(target=n_workers) == []
    assert client.sync(client.scheduler.adaptive_target) >= 0


def test_a_function_groups_workers(client, n_workers):
    import cloudpickle

    key = cloudpickle.dumps(lambda worker: worker.host.upper())
    assert not client.sync(client.scheduler.workers_to_close, n=1, key=key)
    assert len(client.sync(client.scheduler.workers_to_close, n=n_workers, key=key)) == n_workers


def test_a_worker_that_retires_hands_over_what_it_has(client, made, n_workers):
    before = client.has_what()
    leaving = max(before, key=lambda worker: len(before[worker]))
    assert before[leaving]
    retired = client.retire_workers([leaving], close_workers=True)
    assert list(retired) == [leaving]
    assert len(client.has_what()) == n_workers - 1
    assert min(copies(client, made)) >= 1
