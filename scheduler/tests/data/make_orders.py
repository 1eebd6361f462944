"""Writes orders.json: small graphs with what dask.order makes of them.

    python make_orders.py > orders.json

Nodes are numbered by the text of their keys, which is how dask breaks ties. dask's order depends on the iteration order of
sets in places, so it is taken under several hash seeds: `order` is given where all agree, `peak` is the worst number of
results held at once.
"""

import json
import os
import random
import subprocess
import sys
import warnings

import dask
import dask.array as da
import dask.bag as db
import dask.dataframe as dd
import pandas as pd
from dask._task_spec import DataNode, Task, TaskRef, convert_legacy_graph
from dask.base import collections_to_expr
from dask.order import order

HASH_SEEDS = 8

warnings.simplefilter("ignore")


def graph_of(*collections):
    return collections_to_expr(collections).optimize().__dask_graph__()


def random_graph(seed):
    dice = random.Random(seed)
    graph = {}
    for i in range(dice.choice([30, 60, 90])):
        low = max(0, i - dice.choice([3, 10, 40]))
        needs = {f"k{dice.randrange(low, i):03}" for _ in range(dice.choice([0, 1, 1, 2, 3]))} if i else ()
        graph[f"k{i:03}"] = Task(f"k{i:03}", max, *map(TaskRef, sorted(needs)))
    return graph


def layered(width, depth, needs):
    graph = {}
    for level in range(depth):
        for i in range(width):
            key = f"l{level:02}-{i:02}"
            refs = [TaskRef(f"l{level - 1:02}-{j:02}") for j in needs(i)] if level else []
            graph[key] = Task(key, max, *refs)
    return graph


def graphs():
    x = da.ones((400, 400), chunks=(100, 100))
    df = dd.from_pandas(pd.DataFrame({"a": range(200), "b": range(200)}), npartitions=12)
    yield "sum", graph_of(x.sum())
    yield "anomaly", graph_of((x - x.mean(axis=0)) / x.std(axis=0))
    yield "matmul", graph_of(x @ x.T)
    yield "transpose", graph_of((x + x.T).sum())
    yield "svd", graph_of(*da.linalg.svd(da.ones((800, 10), chunks=(100, 10))))
    yield "rechunk", graph_of(x.rechunk((400, 50)))
    yield "cumsum", graph_of(da.cumsum(x, axis=0))
    yield "bag", graph_of(db.from_sequence(range(100), npartitions=20).map(str).frequencies())
    yield "groupby", graph_of(df.groupby("a").b.sum())
    yield "shuffle", graph_of(df.shuffle("a", shuffle_method="tasks", max_branch=4))
    yield "stencil", layered(8, 8, lambda i: [j for j in (i - 1, i, i + 1) if 0 <= j < 8])
    yield "all to all", layered(10, 4, lambda i: range(10))
    yield "chains", layered(6, 6, lambda i: [i])
    for seed in range(12):
        yield f"random {seed}", random_graph(seed)


def describe(name, graph):
    graph = convert_legacy_graph(graph)
    numbers = order(graph)
    keys = sorted(graph, key=str)
    position = {key: i for i, key in enumerate(keys)}
    needs = [sorted(position[need] for need in graph[key].dependencies) for key in keys]
    return {
        "name": name,
        "needs": needs,
        "literals": [i for i, key in enumerate(keys) if isinstance(graph[key], DataNode)],
        "order": [numbers[key] for key in keys],
        "peak": peak(needs, [numbers[key] for key in keys]),
    }


def peak(needs, numbers):
    users = [0] * len(needs)
    for list_ in needs:
        for need in list_:
            users[need] += 1
    held = most = 0
    for node in sorted(range(len(needs)), key=numbers.__getitem__):
        held += 1
        most = max(most, held)
        for need in needs[node]:
            users[need] -= 1
            held -= users[need] == 0
    return most


def under_seed(seed):
    env = {**os.environ, "PYTHONHASHSEED": str(seed)}
    return json.loads(subprocess.check_output([sys.executable, __file__, "--once"], env=env))


def main():
    runs = [under_seed(seed) for seed in range(HASH_SEEDS)]
    print("[")
    for i, described in enumerate(zip(*runs)):
        first = described[0]
        # Tokens differ from run to run where there is chance in the keys; such graphs would not be comparable.
        assert all(other["needs"] == first["needs"] for other in described), first["name"]
        agreed = all(other["order"] == first["order"] for other in described)
        merged = {**first, "order": first["order"] if agreed else None, "peak": max(d["peak"] for d in described)}
        print(json.dumps(merged, separators=(",", ":")) + ("," if i + 1 < len(runs[0]) else ""))
    print("]")


if __name__ == "__main__":
    if "--once" in sys.argv:
        print(json.dumps([describe(*named) for named in graphs()]))
    else:
        main()
