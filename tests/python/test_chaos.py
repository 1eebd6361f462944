"""Eight clients, whose workers are killed all the while: everything they ask for ends, and nothing of it stays.

Needs workers with nannies. DASK_TEST_CHAOS_OPERATIONS and DASK_TEST_CHAOS_SEED say how much and which.
"""

import json
import os
import random
import signal
import threading
import time
import traceback
from urllib.request import urlopen

import pytest
from chaos_operations import OPERATIONS, User
from distributed import Client
from distributed.metrics import time as now
from waiting import eventually

CLIENTS = 8
# Operations that take longer than this are told of.
SLOW_SECONDS = 10
OPERATIONS_DEFAULT = 160
# One worker is killed for each so many operations.
OPERATIONS_PER_KILL = 24
# The first part of a run fills what is kept on purpose: logs of events, names of task groups, pools of connections.
PARTS = 3
# What each further part may add to the scheduler's memory, in bytes: the allocator's slack, far below the results.
GROWTH_BYTES_MAX = 48 << 20


def resident_bytes(pid):
    with open(f"/proc/{pid}/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def children(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as listed:
        return [int(child) for child in listed.read().split()]


class Killer:
    """Kills a worker, or the Python process below it, whenever enough has been done since the last time."""

    def __init__(self, nannies, rng):
        self.nannies, self.rng = nannies, rng
        self.lock = threading.Lock()
        self.done = self.kills = 0

    def count(self):
        """One more operation is done."""
        with self.lock:
            self.done += 1
            if self.done % OPERATIONS_PER_KILL == 0:
                self.kill()

    def kill(self):
        nanny = self.rng.choice(self.nannies)
        try:
            for worker in children(nanny):
                victim = self.rng.choice([worker, *children(worker)])
                os.kill(victim, signal.SIGKILL)
                self.kills += 1
        except (FileNotFoundError, ProcessLookupError):
            pass  # It is on its way out already.


def user_runs(address, number, seed, operations, killer, failures):
    rng = random.Random(f"{seed}-{number}")
    client = Client(address, timeout="60s", set_as_default=False)
    for _ in range(operations):
        if failures:
            break
        if rng.random() < 0.02:
            client.close()
            client = Client(address, timeout="60s", set_as_default=False)
        operation = rng.choice(OPERATIONS)
        begun = now()
        try:
            with client.as_current():
                operation(User(client, f"{number}-{rng.random()}", rng))
        except BaseException as error:
            failures.append(f"{operation.__name__} of client {number} after {now() - begun:.1f} s: {error!r}")
            traceback.print_exc()
        if now() - begun > SLOW_SECONDS:
            print(f"{operation.__name__} of client {number} took {now() - begun:.1f} s, until {time.strftime('%H:%M:%S')}")
        killer.count()
    client.close()


def round_of(address, seed, operations, killer):
    failures = []
    each = [operations // CLIENTS + (number < operations % CLIENTS) for number in range(CLIENTS)]
    threads = [
        threading.Thread(target=user_runs, args=(address, number, seed, n, killer, failures))
        for number, n in enumerate(each)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return failures


def what_goes_on(client):
    """What workers are at, and why."""
    stacks = client.call_stack()
    lines = [f"{worker} runs {key}:\n{''.join(stack)}" for worker, keys in stacks.items() for key, stack in keys.items()]
    for keys in client.processing().values():
        lines += [client.sync(client.scheduler.explain, key=key)["text"] for key in keys[:3]]
    return "\n".join(lines)


@pytest.fixture
def scheduler_counts(client):
    port = client.scheduler_info()["services"]["dashboard"]

    def counts():
        with urlopen(f"http://127.0.0.1:{port}/json/counts.json") as page:
            return json.load(page)

    return counts


def test_everything_ends_and_nothing_stays_while_workers_are_killed(client, address, scheduler_counts):
    operations = int(os.environ.get("DASK_TEST_CHAOS_OPERATIONS", OPERATIONS_DEFAULT))
    seed = int(os.environ.get("DASK_TEST_CHAOS_SEED", "1"))
    scheduler = int(os.environ["DASK_TEST_SCHEDULER_PID"])
    nannies = [int(pid) for pid in os.environ["DASK_TEST_WORKER_PIDS"].split(",")]
    killer = Killer(nannies, random.Random(f"{seed}-killer"))
    sizes = []
    for part in range(PARTS):
        failures = round_of(address, f"{seed}-{part}", operations // PARTS, killer)
        assert not failures, "\n".join([*failures, what_goes_on(client)])
        eventually(lambda: scheduler_counts()["tasks"] == 0, "a scheduler without tasks")
        # Tasks that submit have one client in each worker.
        eventually(lambda: scheduler_counts()["clients"] <= 1 + len(nannies), "the end of all other clients")
        time.sleep(1)
        sizes.append(resident_bytes(scheduler))
    print(f"{killer.done} operations, {killer.kills} kills, the scheduler's memory: {sizes} bytes")
    assert killer.kills > 0
    grown = [after - before for before, after in zip(sizes, sizes[1:])]
    assert max(grown) < GROWTH_BYTES_MAX, sizes
