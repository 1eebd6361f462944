"""Eight clients, whose workers are killed all the while: everything they ask for ends, and nothing of it stays.

Needs workers with nannies. DASK_TEST_CHAOS_OPERATIONS and DASK_TEST_CHAOS_SEED say how much and which.
"""

import os
import random
import signal
import threading
import time
import traceback
from collections import Counter
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
# The scheduler's memory is looked at after each so many operations, but this often at least.
OPERATIONS_PER_SAMPLE = 100
SAMPLES_MIN = 3
# The scheduler gives back what is free when nothing has happened for a second, and looks once a second.
SETTLE_SECONDS = 4
# What the memory of a scheduler that keeps next to no history may gain beside its event log, however long the run: what is kept all
# the same (a hundred deaths of workers, who used what, names of spans), tables that had their first entry, pages of which a part is in use.
GROWTH_BYTES_MAX = 4 << 20


def private_bytes(pid):
    """The memory of a process without the pages of files."""
    with open(f"/proc/{pid}/status") as status:
        line = next(line for line in status if line.startswith("RssAnon:"))
    return int(line.split()[1]) << 10


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


def metrics_lines(client):
    """The lines of /metrics."""
    port = client.scheduler_info()["services"]["dashboard"]
    with urlopen(f"http://127.0.0.1:{port}/metrics") as page:
        return [line for line in page.read().decode().splitlines() if not line.startswith("#")]


def what_goes_on(client):
    """What workers are at, and why, and who holds locks."""
    stacks = client.call_stack()
    lines = [f"{worker} runs {key}:\n{''.join(stack)}" for worker, keys in stacks.items() for key, stack in keys.items()]
    for keys in client.processing().values():
        lines += [client.sync(client.scheduler.explain, key=key)["text"] for key in keys[:3]]
    lines += [line for line in metrics_lines(client) if "semaphore" in line]
    return "\n".join(lines)


@pytest.fixture
def scheduler_metrics(client):
    def metrics():
        """Sums over all labels, by the names of /metrics."""
        sums = Counter()
        for line in metrics_lines(client):
            name, value = line.rsplit(" ", 1)
            sums[name.partition("{")[0].removeprefix("dask_scheduler_")] += float(value)
        return sums

    return metrics


def test_everything_ends_and_nothing_stays_while_workers_are_killed(client, address, scheduler_metrics):
    operations = int(os.environ.get("DASK_TEST_CHAOS_OPERATIONS", OPERATIONS_DEFAULT))
    seed = int(os.environ.get("DASK_TEST_CHAOS_SEED", "1"))
    scheduler = int(os.environ["DASK_TEST_SCHEDULER_PID"])
    nannies = [int(pid) for pid in os.environ["DASK_TEST_WORKER_PIDS"].split(",")]
    killer = Killer(nannies, random.Random(f"{seed}-killer"))
    samples = max(SAMPLES_MIN, operations // OPERATIONS_PER_SAMPLE)
    memory, unexplained = [], []

    def look():
        metrics = scheduler_metrics()
        log = [int(metrics[name]) for name in ("events_bytes", "events", "event_topics", "task_prefixes")]
        memory.append(private_bytes(scheduler))
        unexplained.append(memory[-1] - log[0])
        print(killer.done, killer.kills, memory[-1], *log, flush=True)

    print("operations kills memory event-log events topics prefixes (bytes)")
    look()
    for sample in range(samples):
        part = operations * (sample + 1) // samples - operations * sample // samples
        failures = round_of(address, f"{seed}-{sample}", part, killer)
        assert not failures, "\n".join([*failures, what_goes_on(client)])
        eventually(lambda: scheduler_metrics()["tasks"] == 0, "a scheduler without tasks")
        # Tasks that submit have one client in each worker.
        eventually(lambda: scheduler_metrics()["clients"] <= 1 + len(nannies), "the end of all other clients")
        time.sleep(SETTLE_SECONDS)
        look()
    assert killer.kills > 0
    assert unexplained[-1] - unexplained[0] < GROWTH_BYTES_MAX, (memory, unexplained)
