#!/usr/bin/env python3
"""Workers of ours beside upstream's, in one run: what a task costs, transfers, a held interpreter lock, too little memory.

    python benches/worker/compare.py --binaries target/release [--case cpu] [--repeat 3]

Run it with a Python that has `dask[complete]`, `distributed` and numpy: it is the client's, the workers' and upstream's. Each
case starts a scheduler and workers of one make, then those of the other, and so on in turn; figures are medians.
"""

import argparse
import contextlib
import ctypes
import gc
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time

import numpy as np
from distributed import Client, wait

MAKES = ("ours", "upstream")
MIB = 2**20
TRANSFER_ROUNDS = 6
# More than any case uses at once.
TOUCHED_BYTES = 4 * 2**30
START_SECONDS_MAX = 60
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


class Cluster:
    """A scheduler and workers with nannies, of one make."""

    def __init__(self, make, binaries, workers, options):
        self.make, self.binaries, self.processes = make, binaries, []
        self.directory = tempfile.TemporaryDirectory(prefix="compare-")
        _, self.address = self._start("scheduler", ["--port", "0", "--dashboard-address", ":0"], r"Scheduler at:\s+(\S+)")
        common = [self.address, "--nthreads", "1", "--dashboard-address", ":0", "--local-directory", self.directory.name]
        self.workers = [
            self._start("worker", [*common, "--name", f"w{number}", *options], r"Registered to:")[0] for number in range(workers)
        ]

    def _start(self, role, arguments, line):
        if self.make == "ours":
            command = [str(self.binaries / f"dask-{role}"), "--python", sys.executable]
        else:
            command = [sys.executable, "-m", f"distributed.cli.dask_{role}"]
        process = subprocess.Popen([*command, "--host", "127.0.0.1", *arguments], stderr=subprocess.PIPE, text=True)
        self.processes.append(process)
        found, said = threading.Event(), []

        def read():
            for text in process.stderr:
                if match := re.search(line, text):
                    said.append(match[match.lastindex or 0])
                    found.set()

        threading.Thread(target=read, daemon=True).start()
        if not found.wait(START_SECONDS_MAX):
            self.stop()
            raise RuntimeError(f"{self.make}: no {role} after {START_SECONDS_MAX} s")
        return process.pid, said[0]

    def stop(self):
        for process in reversed(self.processes):
            process.terminate()
        for process in self.processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)
            process.kill()
            process.wait()
        self.directory.cleanup()

    def worker_cpu_seconds(self):
        """Of the workers' nannies and all that they started and that still runs."""
        return sum(cpu_seconds(pid) for worker in self.workers for pid in tree(worker))


def tree(pid):
    yield pid
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            yield from tree(int(child))


def cpu_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND


# -- what the tasks do ------------------------------------------------------------------------------------------------


def noop(number):
    return number


def random_bytes(seed, size):
    return np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)


def checksum(array):
    return int(array.sum(dtype=np.uint64))


def hold_the_lock(seconds):
    # A function of the C library that is called with the lock held.
    ctypes.PyDLL(None).usleep(ctypes.c_uint(int(seconds * 1e6)))


# -- cases: each gives figures by name --------------------------------------------------------------------------------


def cpu(start, options):
    """Processor time of the worker for a task that does nothing."""
    with start(1) as (cluster, client):
        wait(client.map(noop, range(1000), pure=False))
        before, begin = cluster.worker_cpu_seconds(), time.perf_counter()
        futures = client.map(noop, range(options.tasks), pure=False)
        wait(futures)
        seconds = time.perf_counter() - begin
        spent = cluster.worker_cpu_seconds() - before
    return {"worker CPU, us a task": 1e6 * spent / options.tasks, "tasks/s": -options.tasks / seconds}


def transfer(start, options):
    """From one worker's memory to another's: into memory that no process had before, and into what was used before."""
    figures = {}
    with start(2) as (cluster, client):
        for size, count in [(10**6, 200), (10**8, 5)]:
            rates = [-size * count / 1e6 / transfer_once(client, size, count) for _ in range(TRANSFER_ROUNDS)]
            name = f"{count} x {size // 10**6} MB, MB/s"
            figures[f"{name}, new processes"] = rates[0]
            figures[f"{name}, later"] = statistics.median(rates[1:])
    return figures


def transfer_once(client, size, count):
    made = [client.submit(random_bytes, i, size, workers=["w0"], pure=False) for i in range(count)]
    wait(made)
    begin = time.perf_counter()
    there = [client.submit(len, array, workers=["w1"], pure=False) for array in made]
    wait(there)
    seconds = time.perf_counter() - begin
    del made, there
    # Until both workers have forgotten them.
    while any(worker["metrics"]["managed_bytes"] > size for worker in identity(client)["workers"].values()):
        time.sleep(0.05)
    return seconds


def lock(start, options):
    """A task holds the interpreter's lock: how late are heartbeats, and how long do small results take to come?"""
    ages, latencies, stop = [], [], threading.Event()
    with start(2) as (cluster, client):
        small = [client.submit(noop, i, workers=["w0"], pure=False) for i in range(1000)]
        client.gather([client.submit(noop, it, workers=["w1"], pure=False) for it in small[:50]])
        (holder,) = (address for address, it in identity(client)["workers"].items() if it["name"] == "w0")
        first = identity(client)["workers"][holder]["id"]

        def watch():
            while not stop.wait(0.2):
                worker = identity(client)["workers"].get(holder)
                ages.append(time.time() - worker["last_seen"] if worker else float("inf"))

        held = client.submit(hold_the_lock, options.hold, workers=["w0"], pure=False)
        time.sleep(1)
        # One collection of the client's own garbage takes 50 ms.
        gc.disable()
        watching = threading.Thread(target=watch)
        watching.start()
        deadline = time.monotonic() + options.hold - 2
        for it in small[50:]:
            if time.monotonic() > deadline:
                break
            begin = time.perf_counter()
            client.submit(noop, it, workers=["w1"], pure=False).result()
            latencies.append(time.perf_counter() - begin)
            time.sleep(0.05)
        gc.enable()
        stop.set()
        watching.join()
        held.result()
        same = identity(client)["workers"].get(holder, {}).get("id") == first
    return {
        "longest silence, s": max(ages),
        "fetch, median ms": 1e3 * statistics.median(latencies),
        "fetch, longest ms": 1e3 * max(latencies),
        "worker lost": float(not same),
    }


def memory(start, options):
    """Four times as many bytes as a worker of 512 MiB may have, all of them read twice."""
    chunk, limit = 8 * MIB, 512 * MIB
    count, ids = 4 * limit // chunk, set()
    with start(1, "--memory-limit", "512MiB") as (cluster, client):
        begin = time.perf_counter()
        arrays = client.map(random_bytes, range(count), size=chunk, pure=False)
        for _ in range(2):
            sums = client.map(checksum, arrays, pure=False)
            while not all(it.done() for it in sums) and time.perf_counter() - begin < options.patience:
                ids |= {it["id"] for it in identity(client)["workers"].values()}
                time.sleep(0.2)
        seconds = time.perf_counter() - begin
        done = sum(it.status == "finished" for it in sums)
    return {"seconds": seconds, "workers lost": float(len(ids) - 1), "of 100 results missing": 100 * (1 - done / count)}


def touch_memory():
    """A virtual machine's host may take longer to find memory than a case has: neither make is to pay for that."""
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    touch = "import sys; bytearray(b'x') * int(sys.argv[1])"
    subprocess.run([sys.executable, "-c", touch, str(min(TOUCHED_BYTES, free // 2))], check=True)


def identity(client):
    return client.sync(client.scheduler.identity, n_workers=-1)


CASES = {"cpu": cpu, "transfer": transfer, "lock": lock, "memory": memory}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binaries", type=pathlib.Path, required=True, help="folder of dask-scheduler and dask-worker")
    parser.add_argument("--case", choices=CASES, action="append")
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--tasks", type=int, default=10_000, help="of the case cpu")
    parser.add_argument("--hold", type=float, default=40, help="seconds for which the case lock holds the lock")
    parser.add_argument("--patience", type=float, default=300, help="seconds after which the case memory gives up")
    options = parser.parse_args()
    os.environ["PYTHONPATH"] = str(pathlib.Path(__file__).resolve().parent)

    print("| case | figure | ours | upstream | better by |\n|---|---|--:|--:|--:|")
    for name in options.case or CASES:
        figures = {make: [] for make in MAKES}
        for number in range(options.repeat):
            # What went before leaves memory and caches behind: each second round takes the makes in the other order.
            for make in MAKES if number % 2 == 0 else MAKES[::-1]:

                @contextlib.contextmanager
                def start(workers, *arguments, make=make):
                    cluster = Cluster(make, options.binaries, workers, arguments)
                    try:
                        with Client(cluster.address, timeout=30) as client:
                            client.wait_for_workers(workers, timeout=60)
                            yield cluster, client
                    finally:
                        cluster.stop()

                touch_memory()
                figures[make].append(CASES[name](start, options))
        for figure in figures["ours"][0]:
            # Figures of which more is better are negative.
            ours, upstream = (statistics.median(it[figure] for it in figures[make]) for make in MAKES)
            ratio = ours / upstream if ours < 0 else upstream / ours if ours else float("nan")
            print(f"| {name} | {figure} | {abs(ours):,.1f} | {abs(upstream):,.1f} | {ratio:.1f} |", flush=True)


if __name__ == "__main__":
    # Tasks are pickled by reference: workers import them from here.
    import compare

    compare.main()
