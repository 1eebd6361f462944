"""Tasks in processes of their own. The cluster's worker has two threads and runs every task so."""

import ctypes
import os
import signal
import threading
import time

import dask
import numpy as np
import pytest
from distributed import Client, Event, Reschedule, get_client, get_worker, secede, wait
from distributed.diagnostics.plugin import UploadFile
from own_workers import OwnWorker, alive, children
from waiting import RESULT_TIMEOUT, eventually

LARGE = 1_000_000


def process(_=None):
    return os.getpid()


def meet(path, others):
    """Waits for as many as there are processes: they run at the same time."""
    (path / str(os.getpid())).touch()
    eventually(lambda: len(list(path.iterdir())) >= others)
    return os.getpid()


def crash(_):
    ctypes.string_at(0)


def crash_once(path):
    if not path.exists():
        path.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "second time"


def loop_for_ever(path=None):
    if path:
        path.touch()
    while True:
        pass


def keep_the_interpreter(seconds):
    """Holds the lock that all Python code of a process needs."""
    ctypes.PyDLL(None).usleep(int(seconds * 1e6))
    return os.getpid()


async def process_of_coroutine():
    return os.getpid()


def cleans_up(path):
    try:
        while True:
            pass
    finally:
        path.touch()


def fail(x):
    raise KeyError(x)


def rescheduled_once(path):
    if not path.exists():
        path.touch()
        raise Reschedule
    return "moved"


class Unloadable:
    def __reduce__(self):
        return int, ("no number",)


def workers_process(client):
    (pid,) = client.run(os.getpid).values()
    return pid


def pids_of_tasks(client):
    return children(workers_process(client))


def test_tasks_run_apart_and_values_stay(client, tmp_path):
    # From here on its plugins are set up, which has tasks run in new processes.
    worker = workers_process(client)
    pids = client.gather([client.submit(meet, tmp_path, 2, pure=False) for _ in range(2)])
    assert len(set(pids)) == 2 and worker not in pids
    assert set(pids) <= set(pids_of_tasks(client))
    # The same ones run what comes later.
    later = set(client.gather(client.map(process, range(20), pure=False)))
    assert later <= set(pids_of_tasks(client))
    assert len(pids_of_tasks(client)) == 2


def test_large_values_and_what_is_made_of_them(client):
    array = client.submit(np.arange, LARGE)
    doubled = client.submit(lambda a: a * 2, array)
    total = client.submit(lambda a, b: int(a.sum() + b.sum()), array, doubled)
    assert total.result() == 3 * sum(range(LARGE))
    assert np.array_equal(doubled.result(), np.arange(LARGE) * 2)
    assert client.nbytes(summary=False)[array.key] == array.result().nbytes
    scattered = client.scatter(np.ones(LARGE))
    assert client.submit(np.sum, scattered).result() == LARGE
    # Tasks may write into what they are given.
    assert client.submit(lambda a: a.__setitem__(0, 5) or a[0], array).result() == 5


def test_a_task_that_keeps_the_interpreter_keeps_its_own(client, tmp_path):
    held = client.submit(keep_the_interpreter, 5)
    eventually(lambda: client.processing() and any(client.processing().values()))
    # Another thread of the same interpreter could not.
    others = client.gather(client.map(process, range(10), pure=False))
    array = client.submit(np.arange, LARGE).result()
    assert not held.done()
    assert len(array) == LARGE and held.result() not in others


def test_errors_have_their_class_and_place(client):
    future = client.submit(fail, "gone")
    with pytest.raises(KeyError, match="gone") as caught:
        future.result()
    assert [entry.name for entry in caught.traceback][-1] == "fail"
    error = client.submit(lambda x: x, Unloadable()).exception(timeout=RESULT_TIMEOUT)
    assert isinstance(error, ValueError)


def test_a_crash_costs_its_task_alone(client, tmp_path):
    kept = client.submit(np.arange, 10)
    wait(kept)
    before = workers_process(client)
    error = client.submit(crash, 0).exception(timeout=RESULT_TIMEOUT)
    assert type(error).__name__ == "BrokenProcessPool"
    assert "crash" in str(error) and "SIGSEGV" in str(error)
    assert "status 3" in str(client.submit(os._exit, 3).exception(timeout=RESULT_TIMEOUT))
    assert client.submit(crash_once, tmp_path / "crashed", retries=1).result(RESULT_TIMEOUT) == "second time"
    assert workers_process(client) == before
    assert list(kept.result()) == list(range(10))


def test_a_process_that_is_killed_between_tasks_is_not_missed(client, tmp_path):
    for pid in client.gather([client.submit(meet, tmp_path, 2, pure=False) for _ in range(2)]):
        os.kill(pid, signal.SIGKILL)
        # Its first thread may be dead before the others, and the process is not over until all are.
        eventually(lambda pid=pid: not alive(pid) and len(os.listdir(f"/proc/{pid}/task")) == 1)
    assert len(set(client.gather(client.map(process, range(10), pure=False)))) >= 1


def test_timeouts_and_cancelling(client, tmp_path):
    before = workers_process(client)
    with dask.annotate(timeout="500ms"):
        cleaned = client.submit(cleans_up, tmp_path / "cleaned")
        # No exception reaches it there.
        stuck = client.submit(keep_the_interpreter, 300)
    for future in (cleaned, stuck):
        with pytest.raises(TimeoutError, match="longer than its timeout of 0.5 s"):
            future.result(RESULT_TIMEOUT)
    assert (tmp_path / "cleaned").exists()
    # What nobody wants any more does not run on.
    started = tmp_path / "started"
    unwanted = client.submit(loop_for_ever, started)
    eventually(started.exists)
    unwanted.cancel()
    meeting = tmp_path / "meeting"
    meeting.mkdir()
    assert len(set(client.gather([client.submit(meet, meeting, 2, pure=False) for _ in range(2)]))) == 2
    assert workers_process(client) == before
    # Nor does the worker believe that it does.
    eventually(lambda: set(client.run(lambda dask_worker: len(dask_worker.runs.running)).values()) == {0})


def test_what_asks_for_its_worker_runs_beside_it(client):
    address = client.submit(lambda: get_worker().address).result()
    assert address in client.scheduler_info()["workers"]

    def sum_of_more():
        more = get_client().map(abs, range(-5, 0))
        secede()
        return sum(get_client().gather(more))

    assert client.submit(sum_of_more).result(RESULT_TIMEOUT) == 15
    event = Event("asked")
    assert client.submit(event.set).result() is None
    assert event.is_set()


def test_what_cannot_be_sent_stays_where_it_is(client):
    lock = client.submit(threading.Lock)
    assert client.submit(lambda lock: lock.locked(), lock).result(RESULT_TIMEOUT) is False
    # Nothing has come to an end for that.
    assert client.submit(process).result() != workers_process(client)


def test_actors_coroutines_and_rescheduling(client, tmp_path):
    class Counter:
        n = 0

        def more(self):
            self.n += 1
            return self.n

    counter = client.submit(Counter, actor=True).result()
    assert [counter.more().result(), counter.more().result()] == [1, 2]
    assert client.submit(process_of_coroutine).result() in pids_of_tasks(client)
    assert client.submit(rescheduled_once, tmp_path / "once").result(RESULT_TIMEOUT) == "moved"


def test_files_that_come_later_are_imported_anew(client, tmp_path):
    def version():
        import of_the_user

        return of_the_user.VERSION, os.getpid()

    module = tmp_path / "of_the_user.py"
    seen = []
    for n in (1, 2):
        module.write_text(f"VERSION = {n}\n")
        client.register_plugin(UploadFile(str(module)))
        found, pid = client.submit(version, pure=False).result()
        seen.append(pid)
        assert found == n
    assert seen[0] != seen[1] and workers_process(client) not in seen


def test_call_stacks_show_where_the_task_is(client, tmp_path):
    started = tmp_path / "started"
    future = client.submit(loop_for_ever, started)
    eventually(started.exists)
    (stacks,) = client.call_stack(future).values()
    assert "loop_for_ever" in stacks[future.key][-1]
    future.cancel()


def test_memory_of_tasks_counts_as_the_workers(client, tmp_path):
    def grow(path):
        block = bytearray(400_000_000)
        block[::4096] = b"x" * len(block[::4096])
        path.touch()
        eventually(lambda: not path.exists())

    def memory():
        (worker,) = client.scheduler_info()["workers"].values()
        return worker["metrics"]["memory"]

    before, grown = memory(), tmp_path / "grown"
    future = client.submit(grow, grown)
    eventually(grown.exists)
    eventually(lambda: memory() > before + 300_000_000)
    grown.unlink()
    wait(future)


def test_an_annotation_asks_for_a_process(client, address, tmp_path):
    worker = OwnWorker(address, tmp_path / "log", "--no-nanny", "--name", "threads")
    try:
        client.wait_for_workers(2)
        (pid,) = (client.run(os.getpid, workers=[of_name(client, "threads")])).values()
        assert client.submit(process, workers="threads", pure=False).result() == pid
        with dask.annotate(executor="processes"):
            apart = client.submit(process, workers="threads", pure=False)
        task = apart.result()
        assert task != pid and task in children(pid)
        with dask.annotate(executor="others"):
            wrong = client.submit(process, workers="threads", pure=False)
        assert "'processes'" in str(wrong.exception())
    finally:
        worker.kill()
    # Its processes end with it, however it ends.
    eventually(lambda: not alive(task))
    eventually(lambda: not alive(pid))


def of_name(client, name):
    (address,) = [at for at, worker in client.scheduler_info()["workers"].items() if worker["name"] == name]
    return address
