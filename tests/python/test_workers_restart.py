"""Restarts of all workers, and of one. Needs workers with nannies."""

import os

from distributed import wait


def inc(x):
    return x + 1


def test_workers_are_restarted_and_everything_is_forgotten(client, n_workers):
    future = client.submit(inc, 1, pure=False)
    wait(future)
    before = set(client.run(os.getpid).values())
    client.restart(timeout=60)
    assert future.status == "cancelled"
    client.wait_for_workers(n_workers, timeout=60)
    after = set(client.run(os.getpid).values())
    assert len(after) == n_workers and not before & after
    assert not any(client.has_what().values())
    assert client.submit(inc, 1, pure=False).result(timeout=60) == 2


def test_one_worker_is_restarted(client, n_workers):
    before = client.run(os.getpid)
    first = sorted(before)[0]
    assert client.restart_workers([first], timeout=60) == {first: "OK"}
    client.wait_for_workers(n_workers, timeout=60)
    after = set(client.run(os.getpid).values())
    assert before[first] not in after and set(before.values()) - {before[first]} <= after




def end_when_values_come():
    import os

    from dask_rs_executor import calls

    calls.measure = lambda *_: os._exit(1)


def test_values_are_scattered_although_all_workers_end_meanwhile(client, n_workers):
    client.run(end_when_values_come)
    futures = client.scatter(list(range(10)), timeout=60)
    assert client.gather(futures) == list(range(10))
    client.wait_for_workers(n_workers, timeout=60)
