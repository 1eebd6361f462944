"""How clients ask: directly or through the scheduler, with annotations, from inside tasks; and how they take it back."""

import operator
import time

import dask
import dask.array as da
import numpy as np
import pytest
from dask import delayed
from distributed import (
    Client,
    Event,
    Lock,
    Queue,
    Variable,
    get_worker,
    wait,
    worker_client,
)
from distributed.client import FutureCancelledError
from waiting import RESULT_TIMEOUT, eventually


def inc(x):
    return x + 1


def where(_=None):
    return get_worker().address


def workers_of(client):
    return sorted(client.scheduler_info(n_workers=-1)["workers"])


# -- data ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("direct", [True, False])
def test_values_go_directly_to_workers_or_through_the_scheduler(client, direct):
    address = workers_of(client)[-1]
    array = np.arange(100_000)
    there, listed = client.scatter([array, [1, "x"]], direct=direct, workers=[address])
    assert all(set(holders) == {address} for holders in client.who_has([there, listed]).values())
    doubled = client.submit(operator.mul, there, 2, pure=False)
    got, plain = client.gather([doubled, listed], direct=direct)
    assert (got == 2 * array).all() and plain == [1, "x"]


def test_equal_values_have_one_key_unless_told_otherwise(client):
    value = {"a": [1, 2]}
    first, second = client.scatter([value]), client.scatter([value])
    assert first[0].key == second[0].key
    third, fourth = client.scatter([value], hash=False), client.scatter([value], hash=False)
    assert third[0].key != fourth[0].key


@pytest.mark.parametrize("direct", [True, False])
def test_a_broadcast_reaches_every_worker(client, n_workers, direct):
    future = client.scatter(np.ones(50_000), broadcast=True, direct=direct)
    assert len(client.who_has([future])[future.key]) == n_workers
    sums = [client.submit(np.sum, future, workers=[address], pure=False) for address in workers_of(client)]
    assert client.gather(sums) == [50_000] * n_workers


def test_get_compute_and_persist_agree(client):
    @delayed
    def add(a, b):
        return a + b

    total = add(add(1, 2), 3)
    assert total.compute() == client.compute(total, sync=True) == client.persist(total).compute() == 6
    assert client.get({"a": 1, "b": (inc, "a")}, "b") == 2
    later = client.get({"a": 1, "b": (inc, "a")}, ["a", "b"], sync=False)
    assert client.gather(later) == [1, 2]


def test_an_array_is_rechunked_peer_to_peer(client):
    x = np.arange(60 * 40).reshape(60, 40)
    with dask.config.set({"array.rechunk.method": "p2p"}):
        columns = da.from_array(x, chunks=(10, 40)).rechunk((60, 5))
        assert any("p2p" in str(key) for key in columns.__dask_graph__())
        assert (columns.compute() == x).all()


# -- taking it back -------------------------------------------------------------------------------------------------------


def test_a_cancelled_future_says_why(client):
    event = Event("cancel-says-why")
    held = client.submit(event.wait, key="held-until-cancelled")
    client.cancel([held], reason="no-longer-needed", msg="the user went home")
    assert held.cancelled()
    with pytest.raises(FutureCancelledError, match="no-longer-needed.*\n?.*the user went home"):
        held.result(timeout=RESULT_TIMEOUT)
    event.set()


def test_what_another_client_wants_is_cancelled_by_force_only(client, address):
    with Client(address, set_as_default=False) as other:
        event = Event("cancel-by-force", client=client)
        mine = client.submit(event.wait, key="wanted-by-two")
        theirs = other.submit(event.wait, key="wanted-by-two")
        eventually(lambda: "wanted-by-two" in str(client.processing()), "its start")
        # What comes behind it on the other client's stream is answered: the scheduler knows of both.
        other.submit(int, 1, pure=False).result()
        client.cancel([mine])
        time.sleep(0.2)
        assert mine.cancelled() and theirs.status == "pending"
        client.cancel([mine], force=True)
        eventually(lambda: theirs.status == "cancelled", "the other client's notice")
        event.set()


def test_waiting_for_more_workers_than_come_ends(client, n_workers):
    client.wait_for_workers(n_workers, timeout=10)
    with pytest.raises(TimeoutError, match=f"{n_workers}/{n_workers + 1}"):
        client.wait_for_workers(n_workers + 1, timeout=0.3)


# -- annotations ----------------------------------------------------------------------------------------------------------


def test_what_has_priority_runs_first(client):
    address = workers_of(client)[0]
    order, gate = Queue("priority-order"), Event("priority-gate")

    def note(name):
        Queue("priority-order").put(name)

    gate_keeper = client.submit(gate.wait, workers=[address], pure=False, priority=100)
    eventually(lambda: gate_keeper.key in str(client.processing()), "the gate keeper's start")
    with dask.annotate(priority=-10):
        low = client.submit(note, "low", workers=[address], pure=False)
    middle = client.submit(note, "middle", workers=[address], pure=False)
    high = client.submit(note, "high", workers=[address], pure=False, priority=10)
    eventually(lambda: all(future.key in str(client.processing()) for future in (low, middle, high)), "all three")
    gate.set()
    wait([low, middle, high])
    assert list(order.get(batch=3)) == ["high", "middle", "low"]
    gate.clear()


def test_workers_are_a_wish_or_a_must(client):
    first, *_, last = workers_of(client)
    assert client.submit(where, workers=[last], pure=False).result(timeout=RESULT_TIMEOUT) == last
    name = client.scheduler_info(n_workers=-1)["workers"][first]["name"]
    assert client.submit(where, workers=[name], pure=False).result(timeout=RESULT_TIMEOUT) == first
    wish = client.submit(where, workers=["tcp://127.0.0.1:9"], allow_other_workers=True, pure=False)
    assert wish.result(timeout=RESULT_TIMEOUT) in (first, last, *workers_of(client))
    with dask.annotate(workers=[first]):
        parts = [delayed(where)(i) for i in range(3)]
    with dask.config.set({"optimization.fuse.active": False}):
        assert set(client.compute(parts, sync=True, optimize_graph=False)) == {first}


def test_retries_are_an_annotation_of_collections_too(client, tmp_path):
    def flaky():
        with open(tmp_path / "attempts", "a") as attempts:
            attempts.write("x")
        if (tmp_path / "attempts").stat().st_size < 3:
            raise OSError("not yet")
        return "done"

    with dask.annotate(retries=4):
        task = delayed(flaky)()
    assert client.compute(task, optimize_graph=False).result(timeout=RESULT_TIMEOUT) == "done"


# -- from inside tasks ------------------------------------------------------------------------------------------------------


def test_tasks_coordinate_with_each_other(client):
    def produce(n):
        with Lock("tasks-lock"):
            known = Variable("tasks-variable").get()
            Variable("tasks-variable").set(known + n)
        Queue("tasks-queue").put(n)
        if n == 3:
            Event("tasks-event").set()
        return n

    Variable("tasks-variable").set(0)
    futures = client.map(produce, range(1, 5), pure=False)
    assert client.gather(futures) == [1, 2, 3, 4]
    assert Variable("tasks-variable").get() == 10
    assert sorted(Queue("tasks-queue").get(batch=True)) == [1, 2, 3, 4]
    assert Event("tasks-event").is_set()
    Event("tasks-event").clear()


def fibonacci(n):
    if n < 2:
        return n
    with worker_client() as client:
        return sum(client.gather(client.map(fibonacci, [n - 1, n - 2])))


def test_tasks_submit_tasks_that_submit_tasks(client):
    assert client.submit(fibonacci, 6, pure=False).result(timeout=RESULT_TIMEOUT) == 8


def test_what_tasks_see_of_their_worker(client):
    def look():
        worker = get_worker()
        return {
            "address": worker.address == worker.contact_address == worker.worker_address,
            "host": worker.host in worker.address and worker.ip == worker.host,
            "scheduler": worker.scheduler.address,
            "directory": worker.local_directory,
            "here": "seen-by-its-worker" in worker.data,
            "value": worker.data["seen-by-its-worker"],
            "limit": worker.memory_manager.memory_limit > 0,
            "threads": worker.state.nthreads,
            "memory": worker.monitor.get_process_memory() > 0,
            "status": worker.status.name,
            "loop": worker.loop is worker.io_loop,
            "plugins": isinstance(worker.plugins, dict),
            "unknown": hasattr(worker, "no_such_attribute"),
            "nanny": worker.nanny is not None,
        }

    address = workers_of(client)[0]
    kept = client.submit(inc, 1, key="seen-by-its-worker", workers=[address])
    wait(kept)
    seen = client.submit(look, workers=[address], pure=False).result(timeout=RESULT_TIMEOUT)
    info = client.scheduler_info(n_workers=-1)["workers"][address]
    expected = {"scheduler": client.scheduler.address, "directory": info["local_directory"], "value": 2, "unknown": False}
    expected |= {"threads": info["nthreads"], "status": "running"}
    assert {name: value for name, value in seen.items() if value is not True} == expected
