"""Large values between workers of one machine: copied from memory, and sent where the kernel does not allow that."""

import os
import re
import signal
from threading import Event, Thread
from time import sleep
from urllib.request import urlopen

import numpy as np
import pandas as pd
import pytest
from distributed import get_worker, wait
from waiting import eventually

N = 300_000


def read_only():
    array = np.arange(N)
    array.flags.writeable = False
    return array


def reuse_of_memory():
    from dask_rs_executor.regions import KEPT_SECONDS, Regions

    regions = Regions()

    def place(view):
        return np.frombuffer(view, "u1").__array_interface__["data"][0]

    view, _ = regions.take(300_000)
    array = np.frombuffer(view, "u1")
    first = place(view)
    del view
    # Somebody has it still.
    other, _ = regions.take(300_000)
    apart = place(other) != first
    del array
    again, _ = regions.take(299_000)
    same = place(again) == first
    del other, again
    kept = regions._bytes
    sleep(3 * KEPT_SECONDS)
    return apart, same, kept > 0, regions._bytes


def freed_after_fork():
    from dask_rs_executor.regions import regions

    view, _ = regions.take(300_000)
    held, enough = Event(), Event()

    def hold():
        with regions._lock:
            held.set()
            enough.wait()

    Thread(target=hold).start()
    held.wait()
    child = os.fork()
    if child == 0:
        # The thread that has the lock is not here to give it back.
        del view
        os._exit(7)
    enough.set()
    for _ in range(100):
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        sleep(0.1)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "stuck"


def frame():
    return pd.DataFrame({"a": np.arange(N), "b": np.arange(N) / 3, "c": [f"row {i % 97}" for i in range(N)]})


MADE = {
    "bytes": lambda: bytes(range(256)) * 4000,
    "bytearray": lambda: bytearray(range(256)) * 4000,
    "text": lambda: "text, " * N,
    "array": lambda: np.random.default_rng(1).random((600, 700)),
    "fortran": lambda: np.asfortranarray(np.arange(N).reshape(600, 500)),
    "every other": lambda: np.arange(2 * N)[::2],
    "reversed": lambda: np.arange(N)[::-1],
    "read-only": read_only,
    "records": lambda: np.zeros(N, dtype=[("a", "i4"), ("b", "f8")]),
    "objects": lambda: np.array([1, "two", None] * N, dtype=object),
    "very large": lambda: np.arange(10_000_000, dtype="i8"),
    "very large bytes": lambda: bytes(range(256)) * 80_000,
    "frame": frame,
    "nested": lambda: {"a": [np.arange(N), bytes(N)], "b": (np.ones(N), "text"), "c": 1},
    "list": lambda: list(range(N)),
}


def make(name):
    return MADE[name]()


def is_same(value, other):
    assert type(value) is type(other)
    if isinstance(value, np.ndarray):
        assert (value.dtype, value.shape, value.flags.writeable) == (other.dtype, other.shape, other.flags.writeable)
        return bool(np.array_equal(value, other))
    if isinstance(value, pd.DataFrame):
        return bool(value.equals(other))
    if isinstance(value, dict):
        return value.keys() == other.keys() and all(is_same(value[key], other[key]) for key in value)
    if isinstance(value, (list, tuple)):
        return len(value) == len(other) and all(map(is_same, value, other))
    return value == other


def arrived_whole(value, name):
    return is_same(value, make(name))


def change(value):
    value[0] = 7
    return int(value[0])


def lending():
    worker = get_worker()
    return len(worker.lent), len(worker.borrowed)


def borrowed_bytes(client, address):
    port = client.scheduler_info(n_workers=-1)["workers"][address]["services"]["dashboard"]
    with urlopen(f"http://127.0.0.1:{port}/metrics") as page:
        text = page.read().decode()
    return int(re.search(r"^dask_worker_transfer_borrowed_bytes_total (\d+)", text, re.MULTILINE)[1])


def place():
    import os

    from dask_rs_executor import lending as module

    module.allow_readers()
    get_worker().example = bytes(100)
    return os.getpid(), module._address(get_worker().example)


def reach(pid, address):
    from dask_rs_executor import lending as module

    try:
        return module._copy(pid, address, 100, False) == bytes(100)
    except OSError:
        return False


@pytest.fixture
def two(client):
    a, b = sorted(client.scheduler_info(n_workers=-1)["workers"])[:2]
    ((pid, address),) = client.run(place, workers=[a]).values()
    if not all(client.run(reach, pid, address, workers=[b]).values()):
        pytest.skip("NOT RUN: no process may read another's memory here")
    return a, b


def nothing_is_lent(client):
    eventually(lambda: set(client.run(lending).values()) == {(0, 0)}, lambda: client.run(lending))


@pytest.mark.parametrize("name", MADE)
def test_values_arrive_as_they_were(client, two, name):
    a, b = two
    before = borrowed_bytes(client, b)
    value = client.submit(make, name, workers=[a], pure=False)
    assert client.submit(arrived_whole, value, name, workers=[b], pure=False).result()
    assert borrowed_bytes(client, b) - before > N
    # The copy is as good as the first.
    client.cancel(client.submit(len, value, workers=[a], pure=False))
    assert is_same(client.gather(value), make(name))
    nothing_is_lent(client)


def test_many_at_once_and_back_again(client, two):
    a, b = two
    made = [client.submit(make, "array", workers=[a], pure=False) for _ in range(20)]
    there = [client.submit(arrived_whole, it, "array", workers=[b], pure=False) for it in made]
    assert all(client.gather(there))
    moved = [client.submit(np.negative, it, workers=[b], pure=False) for it in made]
    back = [client.submit(np.array_equal, it, -make("array"), workers=[a], pure=False) for it in moved]
    assert all(client.gather(back))
    nothing_is_lent(client)


def test_what_came_can_be_written_to_and_the_original_stays(client, two):
    a, b = two
    value = client.submit(np.ones, N, workers=[a], pure=False)
    assert client.submit(change, value, workers=[b], pure=False).result() == 7
    assert client.submit(np.sum, value, workers=[a], pure=False).result() == N


def refuse(number):
    import ctypes

    from dask_rs_executor import lending as module

    if not hasattr(module, "before"):
        module.before = module._process_vm_readv

    def refused(*_):
        ctypes.set_errno(number)
        return -1

    module._process_vm_readv = refused if number else module.before


def test_values_are_sent_when_they_cannot_be_copied(client, two):
    a, b = two
    before = borrowed_bytes(client, b)
    value = client.submit(make, "array", workers=[a], pure=False)
    # As if the process had gone.
    client.run(refuse, 3, workers=[b])
    try:
        assert client.submit(arrived_whole, value, "array", workers=[b], pure=False).result()
    finally:
        client.run(refuse, 0, workers=[b])
    assert borrowed_bytes(client, b) == before
    value = client.submit(make, "array", workers=[a], pure=False)
    assert client.submit(arrived_whole, value, "array", workers=[b], pure=False).result()
    assert borrowed_bytes(client, b) > before
    nothing_is_lent(client)


def kill_the_lender():
    import os
    import signal

    from dask_rs_executor import lending as module

    before = module._process_vm_readv

    def after_its_end(pid, *arguments):
        module._process_vm_readv = before
        os.kill(pid, signal.SIGKILL)
        # Its memory is gone a moment later.
        while True:
            try:
                module.started(pid)
            except OSError:
                return before(pid, *arguments)

    module._process_vm_readv = after_its_end


def test_a_lender_that_dies_meanwhile_costs_no_result(client, n_workers, two):
    a, b = two
    value = client.submit(make, "array", workers=[a], allow_other_workers=True, pure=False)
    wait(value)
    client.run(kill_the_lender, workers=[b])
    assert client.submit(arrived_whole, value, "array", workers=[b], pure=False).result(timeout=60)
    eventually(lambda: a not in client.scheduler_info(n_workers=-1)["workers"], "the end of the lender")
    client.wait_for_workers(n_workers, timeout=60)
    nothing_is_lent(client)


def test_memory_serves_the_next_value_once_nobody_has_the_last(client):
    assert client.submit(reuse_of_memory, pure=False).result(timeout=60) == (True, True, True, 0)


def test_a_forked_child_frees_what_arrived(client):
    assert client.submit(freed_after_fork, pure=False).result(timeout=60) == 7
