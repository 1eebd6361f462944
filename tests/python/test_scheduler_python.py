"""Python that clients run on the scheduler: functions, plugins, uploaded files, feeds of their own."""

import os

import pytest
from distributed import Client, SchedulerPlugin, WorkerPlugin, get_worker, wait
from distributed.core import connect
from distributed.protocol.pickle import dumps
from waiting import RESULT_TIMEOUT, eventually


def inc(x):
    return x + 1


def test_a_function_on_the_scheduler(client):
    assert client.run_on_scheduler(lambda x, y=0: x + y, 1, y=2) == 3

    async def later(dask_scheduler):
        return dask_scheduler.address

    assert client.run_on_scheduler(later) == client.scheduler.address
    with pytest.raises(ZeroDivisionError):
        client.run_on_scheduler(lambda: 1 / 0)


def test_functions_share_one_process(client):
    def remember():
        os.environ["DASK_TEST_REMEMBER"] = "yes"
        return os.getpid()

    pid = client.run_on_scheduler(remember)
    assert client.run_on_scheduler(lambda: (os.getpid(), os.environ["DASK_TEST_REMEMBER"])) == (pid, "yes")


def test_a_function_sees_the_tasks(client):
    futures = client.map(inc, range(5), pure=False, key="seen")
    total = client.submit(sum, futures, key="total-of-seen")
    failed = client.submit(lambda: 1 / 0, key="seen-erred")
    wait([total, failed])

    def look(dask_scheduler):
        task = dask_scheduler.tasks["total-of-seen"]
        (holder,) = task.who_has
        erred = dask_scheduler.tasks["seen-erred"]
        return {
            "state": task.state,
            "dependencies": sorted(dep.key for dep in task.dependencies),
            "states": {dep.state for dep in task.dependencies},
            "holder": holder.address,
            "held": task in holder.has_what,
            "known": "total-of-seen" in dask_scheduler.tasks,
            "unknown": "no such key" in dask_scheduler.tasks,
            "count": len(dask_scheduler.tasks) >= 7,
            "keys": {key for key in dask_scheduler.tasks} >= {"total-of-seen"},
            "nbytes": task.nbytes,
            "prefix": task.prefix.name,
            "erred": (erred.state, "ZeroDivisionError" in erred.exception_text, erred.exception_blame.key),
            "wanted": [client.client_key for client in task.who_wants],
        }

    seen = client.run_on_scheduler(look)
    assert seen["state"] == "memory" and seen["states"] == {"memory"}
    assert seen["dependencies"] == sorted(future.key for future in futures)
    assert seen["held"] and seen["known"] and not seen["unknown"] and seen["count"] and seen["keys"]
    assert seen["nbytes"] > 0 and seen["prefix"] == "total-of-seen"
    assert seen["erred"] == ("erred", True, "seen-erred")
    assert seen["wanted"] == [client.id]


def test_a_function_sees_the_workers(client, n_workers):
    def look(dask_scheduler):
        return {
            address: {
                "nthreads": worker.nthreads,
                "name": worker.name,
                "status": worker.status.name,
                "limit": worker.memory_limit,
                "memory": worker.memory.process,
                "cpu": worker.metrics["cpu"],
                "host": worker.host,
                "processing": len(worker.processing),
                "nanny": worker.nanny,
                "occupancy": worker.occupancy,
            }
            for address, worker in dask_scheduler.workers.items()
        }

    seen = client.run_on_scheduler(look)
    info = client.scheduler_info(n_workers=-1)["workers"]
    assert set(seen) == set(info) and len(seen) == n_workers
    for address, worker in seen.items():
        assert worker["nthreads"] == info[address]["nthreads"]
        assert worker["name"] == info[address]["name"]
        assert worker["status"] == "running"
        assert worker["limit"] == info[address]["memory_limit"]
        assert worker["memory"] > 0 and worker["host"] == "127.0.0.1"
        assert worker["nanny"] == info[address]["nanny"]


def test_a_function_uses_the_schedulers_methods(client, n_workers):
    client.submit(inc, 1, key="for-the-methods", pure=False).result(timeout=RESULT_TIMEOUT)

    async def use(dask_scheduler):
        dask_scheduler.log_event("from-the-scheduler", {"x": 1})
        identity = dask_scheduler.identity()
        return {
            "identity": (identity["type"], identity["address"], len(identity["workers"])),
            "story": len(dask_scheduler.story("for-the-methods")) > 0,
            "count": dask_scheduler.monitor.count >= 0,
            "threads": dask_scheduler.total_nthreads,
            "clients": sorted(dask_scheduler.clients),
            "events": [event for _, event in dask_scheduler.get_events("from-the-scheduler")],
            "ncores": sorted(dask_scheduler.get_ncores().values()),
            "broadcast": len(await dask_scheduler.broadcast(msg={"op": "ping"})),
            "id": dask_scheduler.id,
            "services": "dashboard" in dask_scheduler.services,
        }

    seen = client.run_on_scheduler(use)
    assert seen["identity"] == ("Scheduler", client.scheduler.address, n_workers)
    assert seen["story"] and seen["count"] and seen["services"]
    assert client.id in seen["clients"]
    assert seen["events"] == [{"x": 1}]
    assert seen["threads"] == sum(client.ncores().values())
    assert seen["broadcast"] == n_workers
    assert seen["id"].startswith("Scheduler-")
    assert client.get_events("from-the-scheduler")[-1][1] == {"x": 1}


class Follower(SchedulerPlugin):
    name = "follower"

    def __init__(self):
        self.transitions, self.clients, self.graphs, self.started = [], [], [], False

    async def start(self, scheduler):
        self.scheduler = scheduler
        self.started = True

    def transition(self, key, start, finish, *args, stimulus_id, **kwargs):
        state = self.scheduler.tasks[key].state if finish != "forgotten" else "forgotten"
        self.transitions.append((key, start, finish, kwargs.get("worker"), state))

    def add_client(self, scheduler, client):
        self.clients.append(("add", client))

    def remove_client(self, scheduler, client):
        self.clients.append(("remove", client))

    def update_graph(self, scheduler, *, client, keys, tasks, **kwargs):
        self.graphs.append((client, set(keys), set(tasks)))


def test_a_scheduler_plugin_follows_what_happens(client, address):
    client.register_plugin(Follower())

    def look(dask_scheduler):
        plugin = dask_scheduler.plugins["follower"]
        return plugin.started, plugin.transitions, plugin.clients, plugin.graphs

    assert client.run_on_scheduler(look)[0] is True
    future = client.submit(inc, 1, key="followed", pure=False)
    future.result(timeout=RESULT_TIMEOUT)

    def states():
        return [(start, finish) for key, start, finish, _, _ in client.run_on_scheduler(look)[1] if key == "followed"]

    eventually(lambda: ("processing", "memory") in states(), "the transition to memory")
    assert states()[:3] == [("released", "waiting"), ("waiting", "processing"), ("processing", "memory")]
    (worker,) = [row[3] for row in client.run_on_scheduler(look)[1] if row[0] == "followed" and row[2] == "memory"]
    assert worker in client.scheduler_info(n_workers=-1)["workers"]
    assert (client.id, {"followed"}, {"followed"}) in [
        (who, set(keys), set(tasks)) for who, keys, tasks in client.run_on_scheduler(look)[3]
    ]
    with Client(address) as other:
        other_id = other.id
    eventually(
        lambda: [what for what, who in client.run_on_scheduler(look)[2] if who == other_id] == ["add", "remove"],
        "the client's coming and going",
    )
    client.unregister_scheduler_plugin("follower")
    assert client.run_on_scheduler(lambda dask_scheduler: "follower" in dask_scheduler.plugins) is False
    with pytest.raises(ValueError, match="follower"):
        client.unregister_scheduler_plugin("follower")


class Idempotent(SchedulerPlugin):
    name = "only-once"
    idempotent = True
    starts = 0

    async def start(self, scheduler):
        scheduler.log_event("starts-of-only-once", "start")


def test_an_idempotent_plugin_starts_once(client):
    client.register_plugin(Idempotent())
    client.register_plugin(Idempotent())
    assert len(client.get_events("starts-of-only-once")) == 1
    client.unregister_scheduler_plugin("only-once")


class Failing(SchedulerPlugin):
    name = "failing"

    async def start(self, scheduler):
        raise RuntimeError("this plugin cannot start")


def test_a_plugin_that_fails_to_start_says_so(client):
    with pytest.raises(RuntimeError, match="this plugin cannot start"):
        client.register_plugin(Failing())


class Described:
    """A value that only pickle can carry."""

    def __init__(self, what):
        self.what = what


class DescribingWorkers(WorkerPlugin):
    name = "describing"

    def setup(self, worker):
        worker.handlers["dask_test_describe"] = lambda what: Described(what * 2)


class Describing(SchedulerPlugin):
    name = "describing"

    async def start(self, scheduler):
        self.scheduler = scheduler
        scheduler.handlers["dask_test_describe"] = self.describe
        await scheduler.register_worker_plugin(None, dumps(DescribingWorkers()), "describing", idempotent=True)

    async def describe(self, what):
        if what is None:
            raise ValueError("nothing to describe")
        described = await self.scheduler.broadcast(msg={"op": "dask_test_describe", "what": what})
        return Described([answer.what for answer in described.values()])


def test_plugins_add_operations_to_scheduler_and_workers(client, n_workers):
    client.register_plugin(Describing())
    try:
        described = client.sync(client.scheduler.dask_test_describe, what="ab")
        assert isinstance(described, Described) and described.what == ["abab"] * n_workers
        with pytest.raises(ValueError, match="nothing to describe"):
            client.sync(client.scheduler.dask_test_describe, what=None)
    finally:
        client.unregister_scheduler_plugin("describing")
        client.unregister_worker_plugin("describing")


def test_an_uploaded_file_is_known_everywhere(client, tmp_path):
    path = tmp_path / "uploaded_module_xyz.py"
    path.write_text("value = 123\n")
    client.upload_file(str(path))

    def use():
        import uploaded_module_xyz

        return uploaded_module_xyz.value

    assert client.submit(use, pure=False).result(timeout=RESULT_TIMEOUT) == 123
    assert client.run_on_scheduler(use) == 123


def test_a_feed_of_a_function_of_ones_own(client, address):
    def setup(scheduler):
        return {"calls": 0}

    def count(scheduler, state):
        state["calls"] += 1
        return {"calls": state["calls"], "workers": len(scheduler.workers)}

    async def follow():
        comm = await connect(address)
        await comm.write({"op": "feed", "setup": dumps(setup), "function": dumps(count), "interval": 0.02})
        try:
            return [await comm.read() for _ in range(3)]
        finally:
            await comm.close()

    rows = client.sync(follow)
    assert [row["calls"] for row in rows] == [1, 2, 3]
    assert rows[0]["workers"] == len(client.scheduler_info(n_workers=-1)["workers"])


def test_what_is_not_there_is_named(client):
    with pytest.raises(AttributeError, match="no_such_thing"):
        client.run_on_scheduler(lambda dask_scheduler: dask_scheduler.no_such_thing)


def test_progress_grouped_by_a_function_of_ones_own(client):
    from distributed.diagnostics.progressbar import MultiProgressBar

    async def follow():
        middle = [client.submit(inc, i, pure=False, key=f"grouped-{i}") for i in range(4)]
        end = client.submit(sum, middle, pure=False, key="grouped-end")
        bar = MultiProgressBar([end], complete=True, group_by=lambda key: key[-1] == "d", interval=0.02)
        bar._draw_bar = lambda **kwargs: None
        await bar.listen()
        return bar._last_response

    told = client.sync(follow)
    assert told["all"] == {True: 1, False: 4} and told["status"] == "finished"
    assert not any(told["remaining"].values())


def test_packages_are_installed_on_scheduler_and_workers(client, n_workers, tmp_path):
    from distributed.diagnostics.plugin import InstallPlugin

    log = tmp_path / "installations"

    def install():
        with open(log, "a") as file:
            file.write(f"{os.getpid()}\n")

    client.register_plugin(InstallPlugin(install, restart_workers=False))
    assert len(set(log.read_text().split())) == 1 + n_workers
