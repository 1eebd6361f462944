"""Four times as much data as a worker may have in memory, and disks that fail. Needs one worker with a nanny and a limit."""

import contextlib
import glob
import os
import re
import subprocess
import time

import numpy as np
import pytest
from distributed import get_worker, wait
from waiting import eventually

CHUNK_BYTES = 8 * 2**20


def make(seed):
    # Does not shrink.
    return np.random.default_rng(seed).integers(0, 2**32, CHUNK_BYTES // 4, dtype=np.uint32)


def checksum(array):
    return int(array.sum(dtype=np.uint64))


def add(a, b):
    return checksum(a) + checksum(b)


def expected(seed):
    return checksum(make(seed))


def python_pid():
    return os.getpid()


def spill_files():
    return glob.glob(os.path.join(get_worker().local_directory, "storage", "*"))


def damage_all():
    paths = spill_files()
    for path in paths:
        # Values may be freed meanwhile.
        with contextlib.suppress(FileNotFoundError), open(path, "r+b") as file:
            file.seek(CHUNK_BYTES // 2)
            file.write(b"damaged!")
    return paths


def read_all(keys):
    # As tasks and plugins do.
    data = get_worker().data
    assert all(key in data for key in keys)
    return [checksum(data[key]) for key in keys]


def the_worker(client):
    ((address, worker),) = client.sync(client.scheduler.identity, n_workers=-1)["workers"].items()
    return address, worker


def spilled(client):
    return the_worker(client)[1]["metrics"]["spilled_bytes"]


def the_files(client):
    return client.run(spill_files)[the_worker(client)[0]]


def nothing_is_spilled(client):
    def left():
        return f"an empty disk beside {spilled(client)}, of {client.has_what()}"

    eventually(lambda: spilled(client) == {"memory": 0, "disk": 0}, left)


def test_four_times_the_limit_is_computed_right_and_kills_nobody(client):
    before = client.run(python_pid)
    limit = the_worker(client)[1]["memory_limit"]
    n = 4 * limit // CHUNK_BYTES
    arrays = client.map(make, range(n), pure=False)
    sums = client.map(checksum, arrays, pure=False)
    wanted = [expected(i) for i in range(n)]
    assert client.gather(sums) == wanted
    eventually(lambda: spilled(client)["memory"] > 2.5 * limit)
    assert spilled(client)["disk"] >= spilled(client)["memory"]
    # All of them again, from disk, two at a time and in another order.
    order = np.random.default_rng(0).permutation(n).tolist()
    pairs = list(zip(order, order[1:] + order[:1]))
    again = client.map(add, [arrays[a] for a, _ in pairs], [arrays[b] for _, b in pairs], pure=False)
    assert client.gather(again) == [wanted[a] + wanted[b] for a, b in pairs]
    assert client.run(python_pid) == before
    del arrays, sums, again
    nothing_is_spilled(client)
    eventually(lambda: the_files(client) == [], "an empty folder")


def test_values_on_disk_are_there_for_clients_and_for_user_code(client):
    n = the_worker(client)[1]["memory_limit"] // CHUNK_BYTES
    arrays = client.map(make, range(n), pure=False)
    client.gather(client.map(checksum, arrays, pure=False))
    eventually(lambda: spilled(client)["memory"] > 0)
    wanted = [expected(i) for i in range(n)]
    # Directly and through the scheduler, one after the other: the first are on disk.
    for i, array in enumerate(arrays[:4]):
        assert checksum(array.result()) == wanted[i]
    assert checksum(client.gather(arrays[4], direct=True)) == wanted[4]
    keys = [array.key for array in arrays]
    assert client.run(read_all, keys)[the_worker(client)[0]] == wanted
    assert client.submit(read_all, keys, pure=False).result() == wanted


def test_what_cannot_be_pickled_stays_in_memory(client):
    class Stubborn:
        def __init__(self, seed):
            self.array = make(seed)

        def __reduce__(self):
            raise TypeError("not this one")

        def __sizeof__(self):
            return CHUNK_BYTES

    def stubborn(seed):
        return Stubborn(seed)

    stays = client.submit(stubborn, 1, pure=False)
    n = the_worker(client)[1]["memory_limit"] // CHUNK_BYTES
    arrays = client.map(make, range(n), pure=False)
    client.gather(client.map(checksum, arrays, pure=False))
    eventually(lambda: spilled(client)["memory"] > 0)
    assert client.submit(lambda it: checksum(it.array), stays).result() == expected(1)
    eventually(lambda: "not this one" in str(client.get_worker_logs(n=500)))
    del stays


def test_values_in_damaged_files_are_computed_again(client):
    nothing_is_spilled(client)
    before = client.run(python_pid)
    n = 2 * the_worker(client)[1]["memory_limit"] // CHUNK_BYTES
    arrays = client.map(make, range(n), pure=False)
    client.gather(client.map(checksum, arrays, pure=False))
    eventually(lambda: spilled(client)["memory"] > 0)
    damaged = client.run(damage_all)[the_worker(client)[0]]
    sums = client.map(checksum, arrays, pure=False)
    assert client.gather(sums) == [expected(i) for i in range(n)]
    assert client.run(python_pid) == before
    logs = str(client.get_worker_logs(n=1000))
    assert "a checksum does not match" in logs and any(path in logs for path in damaged)


def test_scattered_values_in_damaged_files_fail_the_tasks_that_need_them(client):
    before = client.run(python_pid)
    n = the_worker(client)[1]["memory_limit"] // CHUNK_BYTES
    arrays = [client.scatter(make(i)) for i in range(n)]
    eventually(lambda: spilled(client)["memory"] > CHUNK_BYTES)
    damaged = client.run(damage_all)[the_worker(client)[0]]
    sums = client.map(checksum, arrays, pure=False)
    wait(sums)
    errors = {future: future.exception() for future in sums if future.status == "error"}
    # Some of the values are in memory.
    assert 1 <= len(errors) < n
    for future, error in errors.items():
        assert isinstance(error, OSError)
        assert any(path in str(error) for path in damaged), error
        assert "a checksum does not match" in str(error) and future.key in str(error)
    for i, future in enumerate(sums):
        if future.status == "finished":
            assert future.result() == expected(i)
    assert client.run(python_pid) == before


def test_a_full_disk_fails_results_that_have_no_place_and_keeps_the_worker(client):
    if "full-disk" not in the_worker(client)[1]["local_directory"]:
        pytest.skip("the disk is large enough")
    before = client.run(python_pid)
    limit = the_worker(client)[1]["memory_limit"]
    n = int(1.2 * limit) // CHUNK_BYTES
    arrays = client.map(make, range(n), pure=False)
    deadline = time.monotonic() + 120
    while any(array.status == "pending" for array in arrays):
        assert time.monotonic() < deadline, [array.status for array in arrays]
        time.sleep(0.1)
    failed = [array for array in arrays if array.status == "error"]
    kept = [(i, array) for i, array in enumerate(arrays) if array.status == "finished"]
    assert failed and len(kept) * CHUNK_BYTES > limit / 3
    error = failed[0].exception()
    assert isinstance(error, MemoryError)
    assert re.search(r"memory is full .* nothing can be spilled: .*No space left", str(error))
    # Nothing that was kept is lost.
    for i, array in kept[:: max(1, len(kept) // 10)]:
        assert client.submit(checksum, array, pure=False).result() == expected(i)
    assert client.run(python_pid) == before
    assert "Spill to disk failed; keeping data in memory" in str(client.get_worker_logs(n=500))
    # With room again, all goes on.
    del arrays, failed, kept, array
    eventually(lambda: spilled(client)["disk"] == 0)
    assert client.submit(expected, 1, pure=False).result() == expected(1)


@contextlib.contextmanager
def standing_still(disk):
    """Nothing is written to the file system meanwhile; whoever tries waits."""
    subprocess.run(["fsfreeze", "--freeze", disk], check=True)
    try:
        yield
    finally:
        subprocess.run(["fsfreeze", "--unfreeze", disk], check=True)


def test_a_disk_that_stands_still_holds_up_what_it_is_to_take_and_nothing_else(client):
    directory = the_worker(client)[1]["local_directory"]
    if "still-disk" not in directory:
        pytest.skip("the disk cannot be stopped")
    before = client.run(python_pid)
    limit = the_worker(client)[1]["memory_limit"]
    n = 2 * limit // CHUNK_BYTES
    ran = client.submit(checksum, np.arange(10), pure=False)
    assert ran.result() == 45
    with standing_still(directory.partition("/dask-scratch-space")[0]):
        # Tasks go on for as long as there is memory; then the worker pauses.
        arrays = client.map(make, range(n), pure=False)
        eventually(lambda: the_worker(client)[1]["status"] == "paused", "a paused worker")
        computed = sum(array.done() for array in arrays)
        assert 0 < computed < n
        # It is alive all the while, and has what it holds for others.
        for _ in range(3):
            seen = the_worker(client)[1]["last_seen"]
            eventually(lambda seen=seen: the_worker(client)[1]["last_seen"] > seen, "another heartbeat")
            assert client.run(python_pid) == before
        assert client.gather(ran) == 45
        assert not [array for array in arrays if array.status == "error"]
    sums = client.map(checksum, arrays, pure=False)
    assert client.gather(sums) == [expected(i) for i in range(n)]
    assert client.run(python_pid) == before
    del arrays, sums
    nothing_is_spilled(client)


def test_a_disk_that_stands_still_keeps_nobody_from_letting_go_of_what_is_there(client):
    directory = the_worker(client)[1]["local_directory"]
    if "still-disk" not in directory:
        pytest.skip("the disk cannot be stopped")
    before = client.run(python_pid)
    n = the_worker(client)[1]["memory_limit"] // CHUNK_BYTES
    arrays = client.map(make, range(n), pure=False)
    wait(arrays)
    eventually(lambda: spilled(client)["disk"] > 10 * CHUNK_BYTES, "a value on disk")
    with standing_still(directory.partition("/dask-scratch-space")[0]):
        del arrays
        for _ in range(3):
            seen = the_worker(client)[1]["last_seen"]
            eventually(lambda seen=seen: the_worker(client)[1]["last_seen"] > seen, "another heartbeat")
        assert spilled(client)["memory"] == 0
        assert client.submit(checksum, np.arange(10), pure=False).result() == 45
    nothing_is_spilled(client)
    eventually(lambda: the_files(client) == [], "an empty folder")
    assert client.run(python_pid) == before
