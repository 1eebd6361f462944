"""What user code can do on a worker: clients inside tasks, actors, coroutines, plugins, transfers, errors of all kinds."""

import asyncio
import importlib
import sys
import threading
import time

import numpy as np
import pytest
from distributed import Reschedule, WorkerPlugin, get_client, get_worker, rejoin, secede, wait, worker_client

RESULT_TIMEOUT = 60


def inc(x):
    return x + 1


def workers_of(client):
    return sorted(client.scheduler_info(n_workers=-1)["workers"])


def test_get_worker_knows_where_it_is(client):
    def look():
        worker = get_worker()
        return worker.address, worker.name, worker.get_current_task(), worker.state.nthreads

    future = client.submit(look, pure=False)
    address, name, key, nthreads = future.result(timeout=RESULT_TIMEOUT)
    info = client.scheduler_info(n_workers=-1)["workers"][address]
    assert (info["name"], future.key, info["nthreads"]) == (name, key, nthreads)


def test_worker_client_inside_a_task(client):
    def nested(n):
        with worker_client() as inner:
            return sum(inner.gather(inner.map(inc, range(n), pure=False)))

    futures = client.map(nested, [10, 11, 12, 13], pure=False)
    assert client.gather(futures) == [55, 66, 78, 91]


def scatter_and_use_elsewhere(data, where):
    inner = get_client()
    scattered = inner.scatter(data, hash=False)
    secede()
    held = set(inner.who_has([scattered])[scattered.key])
    return held == {get_worker().address}, inner.submit(lambda x: x.sum(), scattered, workers=[where]).result()


@pytest.mark.parametrize("size", [10, 300_000])
def test_a_task_scatters_onto_its_worker(client, size):
    addresses = workers_of(client)
    for source, target in zip(addresses, addresses[1:] + addresses[:1]):
        data = np.ones(size)
        used = client.submit(scatter_and_use_elsewhere, data, target, workers=[source], pure=False)
        assert used.result(timeout=RESULT_TIMEOUT) == (True, size)


def test_a_worker_is_given_resources_by_a_task(client):
    address = workers_of(client)[-1]

    async def give(amount):
        await get_worker().set_resources(**{"dask-test-seat": amount})
        return get_worker().state.total_resources["dask-test-seat"]

    assert client.submit(give, 2, workers=[address], pure=False).result(timeout=RESULT_TIMEOUT) == 2
    seated = client.map(lambda _: get_worker().address, range(4), resources={"dask-test-seat": 2}, pure=False)
    assert set(client.gather(seated)) == {address}
    assert client.scheduler_info(n_workers=-1)["workers"][address]["resources"]["dask-test-seat"] == 2
    client.submit(give, 0, workers=[address], pure=False).result(timeout=RESULT_TIMEOUT)


def test_a_task_secedes_and_rejoins(client):
    def nested(n):
        inner = get_client()
        futures = inner.map(inc, range(n), pure=False)
        secede()
        total = sum(inner.gather(futures))
        rejoin()
        return total

    # More than there are threads: only seceding lets the inner tasks run.
    futures = client.map(nested, [10] * 12, pure=False)
    assert client.gather(futures) == [55] * 12


def test_tasks_wait_for_a_package_that_another_imports(client, tmp_path, monkeypatch):
    # As with `dask.array`, a package within one: its functions look in a table that it fills last.
    package = tmp_path / "dask_test" / "halfway"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").touch()
    (package / "table.py").write_text("entries = []\n\n\ndef look(_):\n    return list(entries)\n")
    (package / "__init__.py").write_text("import time\n\nfrom . import table\n\ntime.sleep(1)\ntable.entries.append(1)\n")
    monkeypatch.syspath_prepend(tmp_path)
    look = importlib.import_module("dask_test.halfway.table").look
    client.run(lambda: sys.path.insert(0, str(tmp_path)))
    try:
        looks = []
        for i in range(8):
            looks.append(client.submit(look, i, pure=False))
            # The first ones are in the middle of the package when the next come.
            time.sleep(0.1)
        assert client.gather(looks) == [[1]] * 8
    finally:
        client.run(lambda: sys.path.remove(str(tmp_path)))


def test_coroutines_are_tasks(client):
    async def slow(x):
        await asyncio.sleep(0.01)
        return x, get_worker().address

    values = client.gather(client.map(slow, range(10), pure=False))
    assert [x for x, _ in values] == list(range(10))
    assert {address for _, address in values} <= set(workers_of(client))


class Counter:
    # Proxies of actors only know attributes of the class.
    n = 0

    def __init__(self, start=0):
        self.n = start

    def add(self, k):
        self.n += k
        return self.n

    def fail(self):
        raise KeyError("no such count")

    async def later(self):
        await asyncio.sleep(0.01)
        return self.n


def test_actors(client):
    counter = client.submit(Counter, 5, actor=True).result(timeout=RESULT_TIMEOUT)
    assert [counter.add(k).result(timeout=RESULT_TIMEOUT) for k in (1, 2, 3)] == [6, 8, 11]
    assert counter.n == 11
    assert counter.later().result(timeout=RESULT_TIMEOUT) == 11
    with pytest.raises(KeyError, match="no such count"):
        counter.fail().result(timeout=RESULT_TIMEOUT)


def test_an_actor_is_used_by_tasks_and_released_with_its_future(client):
    future = client.submit(Counter, actor=True)
    counter = future.result(timeout=RESULT_TIMEOUT)

    def use(actor):
        return actor.add(1).result()

    for expected in (1, 2):
        assert client.submit(use, counter, pure=False).result(timeout=RESULT_TIMEOUT) == expected
    key = future.key
    del future, counter
    deadline = time.monotonic() + RESULT_TIMEOUT
    while any(key in keys for keys in client.has_what().values()):
        assert time.monotonic() < deadline, "the actor was never released"
        time.sleep(0.05)


@pytest.mark.parametrize("make", [lambda: np.arange(300_000.0), lambda: {"a": [1, "b"]}, lambda: 7], ids=["array", "dict", "int"])
def test_values_travel_between_workers_both_ways(client, make):
    addresses = workers_of(client)
    for source, target in zip(addresses, addresses[1:] + addresses[:1]):
        value = client.submit(make, workers=[source], pure=False)
        elsewhere = client.submit(lambda v: v, value, workers=[target], pure=False)
        np.testing.assert_equal(elsewhere.result(timeout=RESULT_TIMEOUT), make())


def test_replicas_are_made_and_retired_data_survives_on_others(client):
    value = client.submit(inc, 41, pure=False)
    wait(value)
    client.replicate([value])
    assert sorted(client.who_has([value])[value.key]) == workers_of(client)


class Unloadable:
    def __reduce__(self):
        return fail_to_load, ()


def fail_to_load():
    raise RuntimeError("cannot be loaded")


def test_a_value_that_does_not_load_elsewhere_is_an_error_there(client):
    addresses = workers_of(client)
    if len(addresses) < 2:
        pytest.skip("needs two workers")
    value = client.submit(Unloadable, workers=addresses[:1], pure=False)
    user = client.submit(type, value, workers=addresses[1:2], pure=False)
    with pytest.raises(Exception, match="cannot be loaded"):
        user.result(timeout=RESULT_TIMEOUT)


def test_a_long_message_is_cut_and_keeps_its_class(client):
    def fail():
        raise ValueError("x" * 100_000)

    with pytest.raises(ValueError, match="Long error message"):
        client.submit(fail, pure=False).result(timeout=RESULT_TIMEOUT)


class Unpicklable(Exception):
    def __init__(self):
        self.lock = threading.Lock()


def test_an_exception_that_cannot_be_pickled_arrives_as_its_repr(client):
    def fail():
        raise Unpicklable()

    with pytest.raises(Exception, match="Unpicklable"):
        client.submit(fail, pure=False).result(timeout=RESULT_TIMEOUT)


def test_a_result_that_cannot_be_pickled_says_so_when_asked_for(client):
    future = client.submit(threading.Lock, pure=False)
    wait(future)
    assert future.status == "finished"
    with pytest.raises(TypeError, match="Could not serialize object of type"):
        future.result(timeout=RESULT_TIMEOUT)
    # On its own worker it is as good as any value.
    assert client.submit(lambda lock: lock.locked(), future, pure=False).result(timeout=RESULT_TIMEOUT) is False


def test_reschedule(client):
    def reluctant(start):
        if time.time() - start < 0.5:
            raise Reschedule
        return "done"

    assert client.submit(reluctant, time.time(), pure=False).result(timeout=RESULT_TIMEOUT) == "done"


def test_an_unknown_executor_is_the_tasks_error(client):
    import dask

    with dask.annotate(executor="gpu-of-dreams"):
        future = client.submit(inc, 1, pure=False)
    with pytest.raises(ValueError, match="gpu-of-dreams"):
        future.result(timeout=RESULT_TIMEOUT)


def test_the_offload_executor_runs_tasks(client):
    import dask

    with dask.annotate(executor="offload"):
        future = client.submit(lambda: threading.current_thread().name, pure=False)
    assert "ffload" in future.result(timeout=RESULT_TIMEOUT)


class Marker(WorkerPlugin):
    name = "marker"

    def setup(self, worker):
        worker.marked = "set up"

    def teardown(self, worker):
        worker.marked = "torn down"


def test_worker_plugins_are_set_up_and_torn_down(client):
    client.register_plugin(Marker())
    assert set(client.run(lambda dask_worker: dask_worker.marked).values()) == {"set up"}
    client.unregister_worker_plugin("marker")
    assert set(client.run(lambda dask_worker: dask_worker.marked).values()) == {"torn down"}


class Follower(WorkerPlugin):
    name = "follower"

    def setup(self, worker):
        self.worker = worker
        worker.seen = []

    def transition(self, key, start, finish, **kwargs):
        text = self.worker.state.tasks[key].exception_text if finish == "error" else None
        self.worker.seen.append((key, start, finish, text))


def test_worker_plugins_hear_of_transitions(client):
    client.register_plugin(Follower())

    def fail():
        raise ValueError("heard of")

    def steps(future, count):
        deadline = time.monotonic() + RESULT_TIMEOUT
        while True:
            rows = [row for seen in client.run(lambda dask_worker: dask_worker.seen).values() for row in seen]
            mine = [row[1:] for row in rows if row[0] == future.key]
            if len(mine) >= count:
                return mine
            assert time.monotonic() < deadline, f"only {mine}"
            time.sleep(0.05)

    good, bad = client.submit(inc, 1, pure=False), client.submit(fail, pure=False)
    wait([good, bad])
    assert [finish for _, finish, _ in steps(good, 4)][:4] == ["waiting", "ready", "executing", "memory"]
    (text,) = [text for start, finish, text in steps(bad, 4) if finish == "error"]
    assert "heard of" in text
    client.unregister_worker_plugin("follower")


def test_run_reports_errors_of_each_worker(client):
    with pytest.raises(ZeroDivisionError):
        client.run(lambda: 1 / 0)
    outcomes = client.run(lambda: 1 / 0, on_error="return")
    assert all(isinstance(outcome, ZeroDivisionError) for outcome in outcomes.values())


def test_events_of_tasks_reach_the_scheduler(client):
    def note():
        get_worker().log_event("notes", {"said": "hello"})

    client.submit(note, pure=False).result(timeout=RESULT_TIMEOUT)
    deadline = time.monotonic() + RESULT_TIMEOUT
    while not any(event["said"] == "hello" for _, event in client.get_events("notes")):
        assert time.monotonic() < deadline, "the event never came"
        time.sleep(0.05)


def test_the_stack_and_the_profile_of_a_running_task(client):
    def busy_bee(seconds):
        end = time.time() + seconds
        while time.time() < end:
            sum(range(1000))

    future = client.submit(busy_bee, 3, pure=False)
    deadline = time.monotonic() + RESULT_TIMEOUT
    while not any("busy_bee" in "".join(stack.get(future.key, "")) for stack in client.call_stack().values()):
        assert time.monotonic() < deadline, "the task's stack was never seen"
        time.sleep(0.05)
    wait(future)
    assert client.profile(key="busy_bee")["count"] > 0


def test_logs_of_workers_can_be_read(client):
    def fail():
        raise ValueError("for the log")

    wait(client.submit(fail, pure=False))
    lines = [line for rows in client.get_worker_logs().values() for _, line in rows]
    assert any("for the log" in line for line in lines)


def test_released_values_leave_the_workers(client):
    def live_beacons(dask_worker):
        import gc

        gc.collect()
        return sum(type(it).__name__ == "Beacon" for it in gc.get_objects())

    class Beacon:
        pass

    futures = [client.submit(Beacon, pure=False) for _ in range(5)]
    wait(futures)
    assert sum(client.run(live_beacons).values()) == 5
    del futures
    deadline = time.monotonic() + RESULT_TIMEOUT
    while sum(client.run(live_beacons).values()):
        assert time.monotonic() < deadline, "released values are still alive"
        time.sleep(0.1)
