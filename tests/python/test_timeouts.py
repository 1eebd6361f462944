"""The annotation `timeout`, and cancelling what runs already. Of our workers only: upstream's know neither."""

import asyncio
import contextlib
import os
import threading
import time

import dask
import pytest
from distributed import Client, Event, Lock, wait
from waiting import RESULT_TIMEOUT, eventually


@pytest.fixture(autouse=True)
def known_to_workers(client):
    """Importing this module counts towards a task's time as well."""
    client.run(inc, 1)


def spin(name=None):
    """Runs Python code for ever, as an endless loop does."""
    if name:
        Event(name).set()
    while True:
        pass


def spin_past_handlers(name):
    """An endless loop around a handler of errors."""
    Event(name).set()
    while True:
        try:
            sum(range(100))
        except Exception:
            pass


def clean_up(name):
    """Notes that its `finally` ran."""
    Event(name + "-started").set()
    try:
        while True:
            pass
    finally:
        Event(name + "-cleaned").set()


async def wait_for_ever():
    await asyncio.Event().wait()


def sleep(seconds, name=None):
    """Waits inside a call of the system, where no exception reaches it."""
    if name:
        Event(name).set()
    time.sleep(seconds)
    return seconds


def hold(name, kind=Lock):
    with kind(name):
        return True


class GrantedLate(Lock):
    """A lock whose answer arrives together with the interruption."""

    async def _acquire(self, timeout=None):
        granted = await super()._acquire(timeout)
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(3600)
        return granted


def fail_slowly_once(name):
    if not Event(name).is_set():
        Event(name).set()
        time.sleep(0)
        while True:
            pass
    return "second time"


def large(n):
    return bytes(n)


def inc(x):
    return x + 1


def pid_of_python():
    return os.getpid()


class Counter:
    def __init__(self):
        self.n = 0

    def increment(self):
        self.n += 1
        return self.n


def only(client):
    """The address of one worker, for tasks that should meet there."""
    return min(client.scheduler_info()["workers"])


def test_an_endless_loop_ends_in_a_timeout_error_that_says_what_and_where(client):
    worker = only(client)
    with dask.annotate(timeout="500ms"):
        future = client.submit(spin, pure=False, workers=[worker])
    with pytest.raises(TimeoutError) as caught:
        future.result(timeout=RESULT_TIMEOUT)
    text = str(caught.value)
    assert future.key in text and worker in text and "0.5 s" in text
    assert "spin" in [frame.name for frame in caught.traceback]
    assert client.submit(inc, 1, pure=False, workers=[worker]).result(timeout=RESULT_TIMEOUT) == 2


def test_numbers_are_seconds_and_tasks_within_their_limit_are_left_alone(client):
    with dask.annotate(timeout=30):
        future = client.submit(sleep, 0.01, pure=False)
    assert future.result(timeout=RESULT_TIMEOUT) == 0.01


def test_collections_take_the_annotation_too(client):
    with dask.annotate(timeout=0.3):
        slow = dask.delayed(spin)()
    with pytest.raises(TimeoutError):
        client.compute(slow, optimize_graph=False).result(timeout=RESULT_TIMEOUT)


def test_a_timeout_that_is_none_is_refused(client):
    with dask.annotate(timeout="soon"):
        future = client.submit(inc, 1, pure=False)
    with pytest.raises(Exception, match="timeout"):
        future.result(timeout=RESULT_TIMEOUT)


def test_a_handler_of_errors_does_not_swallow_the_end(client):
    with dask.annotate(timeout=0.3):
        future = client.submit(spin_past_handlers, "handlers-started", pure=False)
    with pytest.raises(TimeoutError):
        future.result(timeout=RESULT_TIMEOUT)


def test_a_coroutine_is_ended_too(client):
    with dask.annotate(timeout=0.3):
        future = client.submit(wait_for_ever, pure=False)
    with pytest.raises(TimeoutError):
        future.result(timeout=RESULT_TIMEOUT)


def test_what_a_task_waits_for_is_given_up_with_it(client):
    worker = only(client)
    before = client.run(os.getpid, workers=[worker])[worker]
    lock = Lock("given-up")
    lock.acquire()
    with dask.annotate(timeout=0.5):
        future = client.submit(hold, "given-up", pure=False, workers=[worker])
    with pytest.raises(TimeoutError, match="interrupted"):
        future.result(timeout=RESULT_TIMEOUT)
    assert client.run(os.getpid, workers=[worker])[worker] == before, "it could be interrupted"
    lock.release()
    assert lock.acquire(timeout="5s"), "the task that was interrupted does not hold it"
    lock.release()


def test_a_lock_that_is_granted_while_its_task_is_interrupted_is_given_back(client):
    with dask.annotate(timeout=0.5):
        future = client.submit(hold, "granted-late", GrantedLate, pure=False)
    with pytest.raises(TimeoutError, match="interrupted"):
        future.result(timeout=RESULT_TIMEOUT)
    lock = Lock("granted-late")
    assert lock.acquire(timeout="5s")
    lock.release()


def test_retries_apply(client):
    with dask.annotate(timeout=1):
        future = client.submit(fail_slowly_once, "slow-once", pure=False, retries=2)
    assert future.result(timeout=RESULT_TIMEOUT) == "second time"


def test_a_process_that_a_task_holds_is_replaced_and_the_workers_data_kept(client):
    worker = only(client)
    here = {"workers": [worker], "pure": False}
    values = [client.submit(large, n, **here) for n in (10, 1_000_000)]
    wait(values, timeout=RESULT_TIMEOUT)
    before = client.run(os.getpid, workers=[worker])[worker]
    computed = client.run(lambda dask_worker: len(dask_worker.data), workers=[worker])[worker]
    assert computed >= 2
    with dask.annotate(timeout=0.5):
        stuck = client.submit(sleep, 3600, **here)
    with pytest.raises(TimeoutError, match="replaced"):
        stuck.result(timeout=RESULT_TIMEOUT)
    assert worker in client.scheduler_info()["workers"], "the worker itself stays"
    after = client.run(os.getpid, workers=[worker])[worker]
    assert after != before
    assert [len(value) for value in client.gather(values)] == [10, 1_000_000]
    assert all(worker in holders for holders in client.who_has(values).values())
    # They are read by tasks in the new process, too.
    assert client.submit(len, values[1], **here).result(timeout=RESULT_TIMEOUT) == 1_000_000


def test_where_an_actor_lives_only_the_thread_is_given_up(client):
    worker = only(client)
    here = {"workers": [worker], "pure": False}
    counter = client.submit(Counter, actor=True, **here).result(timeout=RESULT_TIMEOUT)
    assert counter.increment().result(timeout=RESULT_TIMEOUT) == 1
    before = client.run(os.getpid, workers=[worker])[worker]
    with dask.annotate(timeout=0.5):
        stuck = client.submit(sleep, 20, **here)
    with pytest.raises(TimeoutError, match="given up"):
        stuck.result(timeout=RESULT_TIMEOUT)
    assert client.run(os.getpid, workers=[worker])[worker] == before
    assert counter.increment().result(timeout=RESULT_TIMEOUT) == 2
    assert client.submit(inc, 1, **here).result(timeout=RESULT_TIMEOUT) == 2


def test_a_cancelled_task_ends_and_its_thread_is_free(client):
    worker = only(client)
    future = client.submit(clean_up, "cancelled", pure=False, workers=[worker])
    assert Event("cancelled-started", client=client).wait(timeout=RESULT_TIMEOUT)
    client.cancel(future)
    assert Event("cancelled-cleaned", client=client).wait(timeout=RESULT_TIMEOUT), "its finally block ran"
    assert client.submit(inc, 1, pure=False, workers=[worker]).result(timeout=RESULT_TIMEOUT) == 2
    active = client.run(lambda dask_worker: list(dask_worker.active_threads.values()), workers=[worker])[worker]
    assert future.key not in active


def test_a_cancelled_task_can_be_asked_for_again(client, address):
    worker = only(client)
    key = "asked-again"
    future = client.submit(fail_slowly_once, "asked-again-started", key=key, workers=[worker])
    assert Event("asked-again-started", client=client).wait(timeout=RESULT_TIMEOUT)
    client.cancel(future)
    # All clients of that moment hear of it, and would cancel the key if they had asked for it before they heard.
    eventually(lambda: all(key not in keys for keys in client.processing().values()))
    with Client(address, set_as_default=False) as other:
        again = other.submit(fail_slowly_once, "asked-again-started", key=key, workers=[worker])
        assert again.result(timeout=RESULT_TIMEOUT) == "second time"
