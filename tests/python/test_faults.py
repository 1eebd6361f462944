"""A checksummed workload while processes, connections and a disk fail; every result is right, and nothing leaks.

DASK_TEST_FAULTS_MINUTES and DASK_TEST_CHAOS_SEED say how long and which. Needs DASK_TEST_WORKER_BINARY, a scheduler with
`--worker-ttl 5s`, and root for the part with the full disk.
"""

import hashlib
import os
import random
import threading
import time
import traceback

import pytest
from distributed import Client, wait
from faults import Faults
from waiting import eventually

MINUTES_DEFAULT = 0.3
TTL_SECONDS = 5
SLOTS = 4
CLIENTS = 3
BLOCKS = 16
BLOCK_BYTES_MAX = 1_500_000
# A round that takes longer hangs.
ROUND_SECONDS_MAX = 240
# What a worker's death or a full disk may do to a task; it is tried again.
RETRIES_MAX = 100


def block(seed, i):
    rng = random.Random(seed * 1_000_003 + i)
    time.sleep(rng.random() / 20)
    return rng.randbytes(rng.randrange(BLOCK_BYTES_MAX))


def mix(left, right):
    time.sleep(len(left) % 30 / 1000)
    return right[: len(right) // 2] + hashlib.sha256(left).digest() + left[len(left) // 2 :]


def digest(value):
    return hashlib.sha256(value).hexdigest()


def graph(apply_block, apply_mix, apply_digest, seed):
    """A tree whose branches also look across, made of these functions."""
    level = [apply_block(seed, i) for i in range(BLOCKS)]
    while len(level) > 1:
        level = [apply_mix(level[i], level[(i + 1) % len(level)]) for i in range(0, len(level), 2)]
    return apply_digest(level[0])


def block_here(seed, i):
    rng = random.Random(seed * 1_000_003 + i)
    rng.random()
    return rng.randbytes(rng.randrange(BLOCK_BYTES_MAX))


def mix_here(left, right):
    return right[: len(right) // 2] + hashlib.sha256(left).digest() + left[len(left) // 2 :]


def result_of(future, retried, deadline):
    """The result; what failed for the faults' sake is tried again. Nothing is raised: tracebacks would hold futures."""
    for _ in range(RETRIES_MAX):
        with future.client.as_current():
            wait(future, timeout=max(deadline - time.monotonic(), 1))
        if future.status == "error":
            retried.append(type(future.exception()).__name__)
            future.retry()
            continue
        for value in future.client.gather([future], errors="skip"):
            return value
    raise AssertionError(f"{future.key} never succeeded: {retried}")


def user_runs(address, number, seed, until, done, retried, failures):
    try:
        with Client(address, timeout="60s", set_as_default=False) as client:
            rounds = 0
            while time.monotonic() < until and not failures:
                here = seed * 10_000 + number * 1000 + rounds
                futures = []

                def submit(function, futures=futures):
                    def apply(*arguments):
                        futures.append(client.submit(function, *arguments, pure=False))
                        return futures[-1]

                    return apply

                last = graph(submit(block), submit(mix), submit(digest), here)
                found = result_of(last, retried, time.monotonic() + ROUND_SECONDS_MAX)
                expected = graph(block_here, mix_here, digest, here)
                assert found == expected, f"round {rounds} of client {number} came to {found}"
                rounds += 1
                done.append(here)
    except BaseException as error:
        failures.append(f"client {number}: {error!r}\n{traceback.format_exc()}")


@pytest.fixture
def faults(address, tmp_path):
    seed = int(os.environ.get("DASK_TEST_CHAOS_SEED", "1"))
    faults = Faults(address, tmp_path, SLOTS, seed, TTL_SECONDS)
    yield faults
    faults.abandon()


def sockets(pid):
    """The inodes of a process's sockets."""
    links = [f"/proc/{pid}/fd/{fd}" for fd in os.listdir(f"/proc/{pid}/fd")]
    found = [os.readlink(link) for link in links if os.path.islink(link)]
    return {link.removeprefix("socket:[").removesuffix("]") for link in found if link.startswith("socket:")}


def connections(inodes):
    """What the system says of sockets: addresses in hexadecimal and the state."""
    with open("/proc/net/tcp") as table:
        rows = [line.split() for line in table]
    return [" ".join([row[9], *row[1:4]]) for row in rows if row[9] in inodes]


def explained(client):
    keys = [key for keys in client.processing().values() for key in keys][:5]
    return "\n".join(client.sync(client.scheduler.explain, key=key)["text"] for key in keys)


def test_every_result_is_right_and_nothing_leaks_while_everything_fails(address, faults):
    minutes = float(os.environ.get("DASK_TEST_FAULTS_MINUTES", MINUTES_DEFAULT))
    seed = int(os.environ.get("DASK_TEST_CHAOS_SEED", "1"))
    scheduler = int(os.environ["DASK_TEST_SCHEDULER_PID"])
    shared_memory = set(os.listdir("/dev/shm"))
    with Client(address, timeout="60s", set_as_default=False) as client:
        client.wait_for_workers(SLOTS, timeout=120)
        client.run_on_scheduler(tasks_left)  # Starts a process beside the scheduler.
        before = sockets(scheduler)
        kept = client.map(block, [seed] * BLOCKS, range(BLOCKS), pure=False)
        until = time.monotonic() + 60 * minutes
        done, retried, failures = [], [], []
        users = [
            threading.Thread(target=user_runs, args=(address, number, seed, until, done, retried, failures))
            for number in range(CLIENTS)
        ]
        for user in users:
            user.start()
        while time.monotonic() < until and not failures:
            faults.step()
        faults.mend_all()
        for user in users:
            while user.is_alive():
                faults.mend_due()
                user.join(0.2)
        assert not failures, "\n".join([*failures, explained(client)])
        deadline = time.monotonic() + ROUND_SECONDS_MAX
        for i, future in enumerate(kept):
            while not future.done() and time.monotonic() < deadline:
                faults.mend_due()
                time.sleep(0.1)
            assert result_of(future, retried, deadline) == block_here(seed, i)
        back, given_up = (sum(slot.says(text) for slot in faults.slots) for text in ["Back at scheduler", "is lost: "])
        disagreed = sum(slot.says("disagrees after the cut") for slot in faults.slots)
        print(
            f"{len(done)} rounds of {2 * BLOCKS} tasks in {minutes} minutes, all right; faults: {faults.counts}; "
            f"{back} cuts mended, {given_up} not; {len(retried)} results tried again: {sorted(set(retried))}"
        )
        assert disagreed == 0 and done
        del kept, future
        try:
            eventually(lambda: not client.run_on_scheduler(tasks_left), "a scheduler without tasks")
        except AssertionError as error:
            raise AssertionError(f"tasks are left: {client.run_on_scheduler(tasks_left)}") from error
        statuses = faults.close()
        assert statuses == [0] * SLOTS, statuses
        eventually(lambda: not client.scheduler_info()["workers"], "a cluster without workers")
        eventually(lambda: not faults.marked_processes(), "the end of every process")
        eventually(lambda: not faults.files(), "clean directories")
        try:
            eventually(lambda: len(sockets(scheduler)) <= len(before), "no more sockets than before")
        except AssertionError as error:
            raise AssertionError(f"beyond {len(before)} sockets: {connections(sockets(scheduler) - before)}") from error
    left = [name for name in set(os.listdir("/dev/shm")) - shared_memory if "dask" in name]
    assert not left, left


def tasks_left(dask_scheduler):
    return [(ts.key, ts.state, [client.client_key for client in ts.who_wants]) for ts in dask_scheduler.tasks.values()]
