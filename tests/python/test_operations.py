"""Calls of clients and cluster objects that the other files do not make."""

import operator
import time

import pytest
from distributed import wait
from distributed.core import connect
from distributed.diagnostics import MemorySampler
from waiting import RESULT_TIMEOUT, eventually


def inc(x):
    return x + 1


def fail_on(x):
    raise ValueError(f"bad value {x}")


def call(client, op, **arguments):
    return client.sync(getattr(client.scheduler, op), **arguments)


def test_where_data_is_and_what_it_weighs(client, n_workers):
    futures = client.map(inc, range(6), pure=False, key="weighed")
    wait(futures)
    keys = {future.key for future in futures}
    assert {key for held in client.has_what().values() for key in held} >= keys
    assert set(client.who_has(futures)) == keys
    assert client.nbytes(summary=True)["weighed"] == sum(client.nbytes(keys, summary=False).values()) > 0
    assert set(client.processing()) == set(client.scheduler_info(n_workers=-1)["workers"])
    client.replicate(futures, n=n_workers)
    assert all(len(holders) == n_workers for holders in client.who_has(futures).values())
    client.rebalance(futures)
    assert client.gather(futures) == list(range(1, 7))


def test_states_of_tasks_and_prefixes(client):
    done = client.submit(inc, 1, key="state-done")
    failed = client.submit(fail_on, 1, key="state-failed")
    wait([done, failed])
    states = call(client, "get_task_status", keys=["state-done", "state-failed", "state-unknown"])
    assert states == {"state-done": "memory", "state-failed": "erred", "state-unknown": None}
    prefixes = call(client, "get_task_prefix_states")
    assert prefixes["state-done"]["memory"] == 1 and prefixes["state-failed"]["erred"] == 1


def test_an_error_is_reproduced_locally(client):
    good = client.submit(inc, 1, pure=False)
    bad = client.submit(operator.truediv, good, 0, pure=False)
    worse = client.submit(inc, bad, pure=False)
    wait(worse)
    with pytest.raises(ZeroDivisionError):
        client.recreate_error_locally(worse)
    assert client.recreate_task_locally(good) == 2


def test_the_active_memory_manager_is_switched(client):
    assert client.amm.running() is True
    client.amm.stop()
    assert client.amm.running() is False
    client.amm.run_once()
    client.amm.start()
    assert client.amm.running() is True


def test_memory_is_sampled(client):
    sampler = MemorySampler()
    with sampler.sample("memory", measure="process", interval=0.05):
        client.submit(inc, 1, pure=False).result(timeout=RESULT_TIMEOUT)
        time.sleep(0.3)
    samples = sampler.samples["memory"]
    assert samples and all(bytes_ > 0 for _, bytes_ in samples)


def test_scaling_is_advised(client, n_workers):
    workers = set(client.scheduler_info(n_workers=-1)["workers"])
    eventually(lambda: call(client, "check_idle"), "idleness")
    assert call(client, "adaptive_target") >= 0
    assert set(call(client, "workers_to_close", n=1)) <= workers
    assert len(call(client, "workers_to_close", n=1)) == 1
    names = call(client, "workers_to_close", n=n_workers, attribute="name")
    assert len(names) == n_workers


def test_a_cluster_object_follows_workers(client, address, n_workers):
    async def follow():
        comm = await connect(address)
        await comm.write({"op": "subscribe_worker_status"})
        try:
            return await comm.read()
        finally:
            await comm.close()

    identity = client.sync(follow)
    assert len(identity["workers"]) == n_workers
    assert all("metrics" not in worker for worker in identity["workers"].values())


def test_a_message_is_passed_to_one_worker_or_all(client):
    workers = client.scheduler_info(n_workers=-1)["workers"]
    for address in workers:
        assert call(client, "proxy", msg={"op": "ping"}, worker=address) == b"pong"
    with pytest.raises(OSError, match="127.0.0.1:1 is not there"):
        call(client, "proxy", msg={"op": "ping"}, worker="tcp://127.0.0.1:1")
    assert set(call(client, "broadcast", msg={"op": "ping"}).values()) == {b"pong"}
    assert call(client, "echo", data="hello") == "hello"


def test_the_scheduler_is_told_of_a_workers_resources(client):
    address = sorted(client.scheduler_info(n_workers=-1)["workers"])[0]
    assert call(client, "set_resources", worker=address, resources={"licence": 2}) == "OK"
    assert client.scheduler_info(n_workers=-1)["workers"][address]["resources"]["licence"] == 2
    call(client, "set_resources", worker=address, resources={"licence": 0})


def test_workers_answer_questions_of_their_own(client):
    address = sorted(client.scheduler_info(n_workers=-1)["workers"])[0]

    def ask(op, **arguments):
        return call(client, "proxy", msg={"op": op, **arguments}, worker=address)

    assert ask("identity")["type"] == "Worker"
    assert ask("echo", data=[1, "x"]) in ([1, "x"], (1, "x"))
    assert "range_query" in ask("get_monitor_info", recent=True, start=0)
    metadata = ask("profile_metadata", start=0)
    assert set(metadata) == {"counts", "keys"}
    assert {"host", "packages"} <= set(ask("versions"))
    assert ask("keys") is not None
    assert ask("dump_state", exclude=())["type"] == "Worker"


def test_a_task_without_workers_waits_as_upstream_lets_it(client):
    future = client.submit(inc, 1, workers=["tcp://127.0.0.1:1"], pure=False)
    eventually(lambda: call(client, "get_task_status", keys=[future.key])[future.key] == "no-worker")
    client.cancel([future])


def test_nannies_answer_questions(client):
    answers = call(client, "broadcast", msg={"op": "identity"}, nanny=True)
    assert {answer["type"] for answer in answers.values()} == {"Nanny"}
    assert set(call(client, "broadcast", msg={"op": "echo", "data": 1}, nanny=True).values()) == {1}
    assert all(rows is not None for rows in client.get_worker_logs(nanny=True).values())
    call(client, "broadcast", msg={"op": "dump_state"}, nanny=True)
