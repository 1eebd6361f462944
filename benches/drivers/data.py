"""Moving values: COUNT values of SIZE bytes, such as `data_worker-1000000-200`."""

import numpy as np
from distributed import wait


def made(client, size, count, worker):
    futures = client.map(array, range(count), size=size, workers=[worker], pure=False)
    wait(futures)
    return futures


def array(seed, size):
    return np.full(size, seed % 251, dtype=np.uint8)


def moved(harness, size, count, function):
    with harness.measured(count) as section:
        values = function()
    harness.figure("MB/s", size * count / 1e6 / section.seconds)
    return values


def between_workers(client, harness, size, count):
    """From one worker's memory to a task on another, until those tasks are done."""
    size, count = int(size), int(count)
    source, target = sorted(client.nthreads())[:2]
    for _ in range(2):
        wait([client.submit(len, it, workers=[target], pure=False) for it in made(client, 1000, 20, source)])
    values = made(client, size, count, source)
    moved(harness, size, count, lambda: wait(client.map(len, values, workers=[target], pure=False)))


def gather(client, harness, size, count, direct=False):
    """To the client, through the scheduler."""
    size, count = int(size), int(count)
    values = [it for worker in sorted(client.nthreads())[:2] for it in made(client, size, count // 2, worker)]
    arrays = moved(harness, size, len(values), lambda: client.gather(values, direct=direct))
    assert sum(len(it) for it in arrays) == size * len(values)


def gather_direct(client, harness, size, count):
    """To the client, from the workers."""
    gather(client, harness, size, count, direct=True)


def scatter(client, harness, size, count, direct=False):
    """From the client, through the scheduler."""
    size, count = int(size), int(count)
    values = [array(i, size) for i in range(count)]
    futures = moved(harness, size, count, lambda: client.scatter(values, direct=direct, hash=False))
    assert len(futures) == count


def scatter_direct(client, harness, size, count):
    """From the client, to the workers."""
    scatter(client, harness, size, count, direct=True)


FAMILIES = {
    "data_worker": between_workers,
    "data_gather": gather,
    "data_gather_direct": gather_direct,
    "data_scatter": scatter,
    "data_scatter_direct": scatter_direct,
}
