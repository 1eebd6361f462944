"""Workers whose connections to the scheduler are cut by a proxy between them. Needs DASK_TEST_WORKER_BINARY."""

import asyncio
import collections
import os
import random
import subprocess
import time

import pytest
from cutting import Proxy
from distributed import Client
from distributed.core import connect
from own_workers import OwnWorker
from waiting import eventually

# How many times connections are cut under a running graph.
CUTS = 12


class CutWorker(OwnWorker):
    """A worker of ours behind a proxy."""

    def __init__(self, scheduler, log, *options):
        self.proxy = Proxy(scheduler)
        super().__init__(self.proxy.address, log, *options)

    def close(self):
        self.proxy.close()
        self.kill()


@pytest.fixture
def cut_worker(address, tmp_path):
    workers = []

    def start(*options):
        worker = CutWorker(address, tmp_path / f"worker-{len(workers)}", *options)
        workers.append(worker)
        worker.wait_for("Registered to:")
        return worker

    yield start
    for worker in workers:
        worker.close()


@pytest.fixture
def client(address):
    with Client(address, timeout="20s") as client:
        yield client


def removals(client):
    return [event for _, event in client.get_events("all") if event.get("action") == "remove-worker"]


def note_run(path, key):
    with open(path, "a") as runs:
        runs.write(f"{key}\n")


def source(path, i):
    note_run(path, f"source {i}")
    time.sleep(random.random() / 50)
    return bytes([i % 256]) * 1000


def pair(path, i, left, right):
    note_run(path, f"pair {i}")
    return len(left) + len(right) + i


def runs(path):
    return collections.Counter(path.read_text().splitlines())


@pytest.mark.parametrize("half_open", [False, True], ids=["cut", "half open"])
def test_cuts_under_a_running_graph_lose_double_and_repeat_nothing(client, cut_worker, tmp_path, half_open):
    worker = cut_worker()
    client.wait_for_workers(1, timeout=60)
    before, path = len(removals(client)), tmp_path / "runs"
    count, rng, totals, inputs = 0, random.Random(7), [], []
    # Submitted in parts, so that messages go both ways between any two cuts.
    for _ in range(CUTS):
        numbers = range(count, count + 30)
        sources = client.map(source, [str(path)] * 30, numbers, pure=False)
        pairs = [client.submit(pair, str(path), i, *rng.sample(sources, 2), pure=False) for i in numbers]
        totals += pairs
        inputs += sources
        time.sleep(rng.random() / 5)
        worker.proxy.cut(half_open)
        count += 30
    assert client.gather(totals) == [2000 + i for i in range(count)]
    client.gather(inputs)
    ran = runs(path)
    assert len(ran) == 2 * count and set(ran.values()) == {1}, [key for key, n in ran.items() if n > 1]
    assert len(removals(client)) == before
    assert worker.proxy.cuts >= CUTS
    assert worker.says("Back at scheduler")
    worker.wait_for("The scheduler agrees after the cut")
    assert not worker.says("disagrees")


def test_a_cut_for_longer_than_the_grace_costs_the_worker_and_no_result(client, cut_worker, tmp_path):
    lost = cut_worker("--reconnect-grace", "1s")
    client.wait_for_workers(1, timeout=60)
    path = tmp_path / "runs"
    held = client.map(source, [str(path)] * 5, range(5), pure=False)
    client.gather(held)
    [gone] = client.scheduler_info()["workers"]
    lost.proxy.block()
    eventually(lambda: gone not in client.scheduler_info()["workers"], "the end of the worker")
    assert lost.ended() == 0
    assert lost.says("no connection in 1 s")
    cut_worker()
    assert [len(value) for value in client.gather(held)] == [1000] * 5
    assert set(runs(path).values()) == {2}


def test_a_worker_that_is_away_keeps_its_place_and_gets_no_new_tasks(client, cut_worker, tmp_path):
    first, path = cut_worker(), tmp_path / "runs"
    client.wait_for_workers(1, timeout=60)
    held = client.submit(source, str(path), 1, pure=False)
    held.result(timeout=60)
    [address] = client.scheduler_info()["workers"]
    first.proxy.block()
    eventually(lambda: client.scheduler_info()["workers"][address]["status"] == "paused", "a worker that is away")
    cut_worker()
    others = client.map(source, [str(path)] * 20, range(20), pure=False)
    client.gather(others)
    assert not any(address in holders for holders in client.who_has(others).values())
    first.proxy.unblock()
    eventually(lambda: client.scheduler_info()["workers"][address]["status"] == "running", "a worker that is back")
    assert client.who_has([held]) == {held.key: (address,)}
    assert runs(path)["source 1"] == 2, "one of each submission"


def test_another_worker_of_the_same_name_takes_the_place_of_one_that_is_away(client, cut_worker):
    away = cut_worker("--name", "the-one", "--no-nanny")
    client.wait_for_workers(1, timeout=60)
    [address] = client.scheduler_info()["workers"]
    away.proxy.block()
    eventually(lambda: client.scheduler_info()["workers"][address]["status"] == "paused", "a worker that is away")
    cut_worker("--name", "the-one")
    [other] = client.scheduler_info()["workers"]
    assert other != address
    away.proxy.unblock()
    away.ended()
    assert away.says("this worker is not waited for any more") or away.says("Scheduler was unaware of this worker")
    assert client.submit(sum, [1, 2], pure=False).result(timeout=60) == 3


def test_a_killed_worker_is_not_waited_for(client, cut_worker, address, tmp_path):
    """Its machine says that nobody listens there: its tasks need not wait for the grace."""
    killed = cut_worker("--no-nanny", "--reconnect-grace", "1h")
    client.wait_for_workers(1, timeout=60)
    held = client.submit(source, str(tmp_path / "runs"), 1, pure=False)
    held.result(timeout=60)
    killed.kill()
    cut_worker()
    assert len(held.result(timeout=60)) == 1000


def test_a_worker_ends_with_a_scheduler_that_was_killed(cut_worker, tmp_path):
    """It is not looked for during the whole grace when its machine says that nobody listens."""
    log = tmp_path / "scheduler"
    command = [os.environ["DASK_TEST_WORKER_BINARY"].replace("dask-worker", "dask-scheduler"), "--python", "none"]
    with log.open("wb") as stderr:
        scheduler = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", "0", "--dashboard-address", "127.0.0.1:0"], stderr=stderr
        )
    try:
        eventually(lambda: "Scheduler at:" in log.read_text(), "a scheduler")
        [line] = [line for line in log.read_text().splitlines() if "Scheduler at:" in line]
        worker = OwnWorker(line.split()[-1], tmp_path / "worker", "--no-nanny", "--reconnect-grace", "1h")
        try:
            worker.wait_for("Registered to:")
            scheduler.kill()
            assert worker.ended() == 0
            assert worker.says("nobody listens there any more")
        finally:
            worker.kill()
    finally:
        scheduler.kill()
        scheduler.wait()


def test_without_a_grace_a_cut_ends_the_worker(client, cut_worker):
    worker = cut_worker("--reconnect-grace", "0s", "--no-nanny")
    client.wait_for_workers(1, timeout=60)
    worker.proxy.cut()
    worker.ended()
    assert worker.says("worker-handle-scheduler-connection-broken")


def ask(address, message):
    async def exchange():
        comm = await connect(address)
        await comm.write(message)
        try:
            return await comm.read()
        finally:
            comm.abort()

    return asyncio.run(exchange())


@pytest.mark.parametrize("arguments", [{"token": "x" * 32}, {"token": ""}, {"token": "é" * 16}, {"token": "0" * 10_000}])
def test_who_does_not_know_the_token_is_refused(address, client, cut_worker, arguments):
    cut_worker()
    client.wait_for_workers(1, timeout=60)
    for worker in [*client.scheduler_info()["workers"], "tcp://127.0.0.1:1"]:
        for received in [0, 2**63, 2**64 - 1]:
            message = {"op": "resume-worker", "address": worker, "received": received, **arguments}
            answer = ask(address, message)
            assert answer["status"] == "error" and "not waited for" in answer["message"]
    assert client.submit(sum, [1, 2], pure=False).result(timeout=60) == 3


@pytest.mark.parametrize(
    "message", [{}, {"address": 5}, {"address": "tcp://127.0.0.1:1", "token": 5, "received": -1}, {"received": "all"}]
)
def test_senseless_requests_are_answered(address, client, message):
    answer = ask(address, {"op": "resume-worker", **message})
    assert answer["status"] != "OK"
    assert client.scheduler_info()["type"] == "Scheduler"
