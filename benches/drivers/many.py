"""Many small tasks: maps, and graphs made by hand."""

import time

from dask import delayed
from distributed import wait

import functions

# The client is asked for this many tasks at a time, as its memory for futures is not what is measured.
BURST = 100_000


def map_of(client, harness, function, count):
    wait(client.map(function, range(min(100, count)), pure=False))
    with harness.measured(count):
        futures = []
        for start in range(0, count, BURST):
            futures += client.map(function, range(start, min(start + BURST, count)), pure=False)
        wait(futures)


def noop_module(client, harness, count):
    """Trivial calls of a function that workers import."""
    map_of(client, harness, functions.noop, int(count))


def graph_of(client, harness, graph, key, tasks):
    with harness.measured(tasks):
        future = client.get(graph, key, sync=False)
        wait(future)


def merge(client, harness, count):
    """COUNT trivial tasks and one that reads them all; a dict."""
    count = int(count)
    graph = {("part", i): (functions.noop, i) for i in range(count)}
    graph["merged"] = (functions.total_of, [("part", i) for i in range(count)])
    graph_of(client, harness, graph, "merged", count + 1)


def tree(client, harness, height):
    """The sum of 2**HEIGHT numbers, two at a time; a dict."""
    width, graph = 2 ** int(height), {}
    layer = list(range(width))
    for level in range(int(height)):
        pairs = list(zip(layer[::2], layer[1::2], strict=True))
        layer = [("sum", level, i) for i in range(len(pairs))]
        graph |= {key: (functions.add, *pair) for key, pair in zip(layer, pairs, strict=True)}
    graph_of(client, harness, graph, layer[0], width - 1)


def all_to_all(client, harness, width):
    """WIDTH tasks, as many that each read all of them, and one that reads those; a dict."""
    width = int(width)
    graph = {("from", i): (functions.noop, i) for i in range(width)}
    everything = [("from", i) for i in range(width)]
    graph |= {("to", i): (functions.total_of, everything) for i in range(width)}
    graph["merged"] = (functions.total_of, [("to", i) for i in range(width)])
    graph_of(client, harness, graph, "merged", 2 * width + 1)


def chain(client, harness, length):
    """Each task reads the one before; a dict."""
    length = int(length)
    graph = {("link", 0): (functions.noop, 0)}
    graph |= {("link", i): (functions.increment, ("link", i - 1)) for i in range(1, length)}
    graph_of(client, harness, graph, ("link", length - 1), length)


def delayed_merge(client, harness, count):
    """As merge, with `dask.delayed`."""
    count = int(count)
    part, merged = delayed(functions.noop, pure=False), delayed(functions.total, pure=False)
    wait(client.compute(merged(part(0))))
    whole = merged(*[part(i) for i in range(count)])
    with harness.measured(count + 1):
        wait(client.compute(whole))


def delayed_tree(client, harness, height):
    """As tree, with `dask.delayed`."""
    add = delayed(functions.add, pure=False)
    wait(client.compute(add(0, 0)))
    layer = list(range(2 ** int(height)))
    while len(layer) > 1:
        layer = [add(a, b) for a, b in zip(layer[::2], layer[1::2], strict=True)]
    with harness.measured(2 ** int(height) - 1):
        wait(client.compute(layer[0]))


def merge_slow(client, harness, count, seconds):
    """COUNT tasks that sleep for SECONDS each, and one that reads them all; a dict."""
    count, seconds = int(count), float(seconds)
    threads = sum(client.nthreads().values())
    graph = {("slow", i): (functions.wait_for, seconds, i) for i in range(count)}
    graph["merged"] = (functions.total_of, [("slow", i) for i in range(count)])
    ideal = -(-count // threads) * seconds
    with harness.measured(count + 1) as section:
        future = client.get(graph, "merged", sync=False)
        wait(future)
    harness.figure("overhead over ideal, %", 100 * (section.seconds / ideal - 1))


def memory(client, harness, count):
    """A map whose results are held, then released: what the scheduler's memory does."""
    count, futures = int(count), []
    with harness.measured(count):
        for start in range(0, count, BURST):
            futures += client.map(functions.noop, range(start, min(start + BURST, count)), pure=False)
        wait(futures)
    harness.look("scheduler memory held, bytes/task")
    futures.clear()
    # The answer comes behind the releases; freed pages are given back a moment later.
    wait(client.submit(functions.noop, 0, pure=False))
    time.sleep(3)
    harness.look("scheduler memory left, bytes/task")


FAMILIES = {
    "noop_module": noop_module,
    "merge": merge,
    "tree": tree,
    "all_to_all": all_to_all,
    "chain": chain,
    "delayed_merge": delayed_merge,
    "delayed_tree": delayed_tree,
    "merge_slow": merge_slow,
    "memory": memory,
}
