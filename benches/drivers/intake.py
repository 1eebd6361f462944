"""How a graph comes in, and what others notice of it."""

import subprocess
import sys
import time

import dask.array as da
from distributed import Client, wait

import functions

# The other client submits these at most; 100,000 tasks take upstream some 30 s.
TRIPS_MAX = 100_000


def array_of(tasks):
    """An array graph of about this many tasks: x + x.T and its sum, two tasks a chunk and the sums."""
    side = max(2, int((tasks / 2.33) ** 0.5))
    x = da.ones((side, side), chunks=1)
    return (x + x.T).sum()


def other_client(client, harness, tasks):
    """Another client's round trips while an array graph of TASKS arrives and is computed."""
    for number in range(20):
        client.submit(functions.increment, number, pure=False).result()
    submitter = subprocess.Popen(
        [sys.executable, __file__, harness.address, tasks], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert submitter.stdout.readline().strip() == "ready"
    seconds = []
    with harness.measured(int(tasks)):
        submitter.stdin.write("go\n")
        submitter.stdin.flush()
        while submitter.poll() is None and len(seconds) < TRIPS_MAX:
            time.sleep(0.012)
            begin = time.perf_counter()
            client.submit(functions.increment, len(seconds), pure=False).result()
            seconds.append(time.perf_counter() - begin)
    assert submitter.wait() == 0, "the other client failed"
    harness.percentiles("round trip", seconds)


def graph_only(client, harness, tasks):
    """Until the scheduler has taken an array graph of TASKS in."""
    wait(client.compute(array_of(10)))
    array = array_of(int(tasks))
    with harness.measured(int(tasks)):
        begin = time.perf_counter()
        future = client.compute(array)
        submitted = time.perf_counter() - begin
        # The client's stream is taken in order: an answer comes behind the graph.
        while client.sync(client.scheduler.get_task_status, keys=[future.key])[future.key] is None:
            time.sleep(0.002)
        known = time.perf_counter() - begin
    harness.figure("client, ms", 1e3 * submitted)
    harness.figure("until known, ms", 1e3 * known)


FAMILIES = {"intake_other": other_client, "intake": graph_only}


def submit():
    address, tasks = sys.argv[1:]
    with Client(address, timeout=60) as client:
        wait(client.compute(array_of(10)))
        array = array_of(int(tasks))
        print("ready", flush=True)
        sys.stdin.readline()
        wait(client.compute(array))


if __name__ == "__main__":
    submit()
