"""Writes graphs of real collections, and the orders that dask.order gives them, one JSON object a line.

    python make_graphs.py small > small.jsonl
    python make_graphs.py large > large.jsonl

Nodes are numbered by the text of their keys, which is how dask breaks ties. Its order depends on the iteration order of sets
in places, and so on the hash seed of the process: `orders` has one for each of several seeds, as far as they differ.
"""

import json
import os
import subprocess
import sys
import warnings

import dask
import dask.array as da
import dask.bag as db
import dask.dataframe as dd
import numpy as np
import pandas as pd
from dask import delayed
from dask._task_spec import DataNode, convert_legacy_graph
from dask.base import collections_to_expr
from dask.order import order

HASH_SEEDS = 5

warnings.simplefilter("ignore")
dask.config.set({"dataframe.shuffle.method": "tasks"})


def graph_of(*collections):
    return convert_legacy_graph(collections_to_expr(collections).optimize().__dask_graph__())


def named(function, name, *inputs):
    """A delayed call with a key that is the same each time."""
    return delayed(function, pure=False)(*inputs, dask_key_name=name)


def pairs(name, level):
    depth = 0
    while len(level) > 1:
        depth += 1
        level = [named(max, f"{name}-{depth}-{n:04}", *level[2 * n : 2 * n + 2]) for n in range((len(level) + 1) // 2)]
    return level[0]


def chains(n):
    ends = []
    for chain in range(n):
        end = named(max, f"load-{chain:04}")
        for step in ("clean", "fit", "score", "save"):
            end = named(max, f"{step}-{chain:04}", end)
        ends.append(end)
    return ends


def smoothed(x, steps):
    for _ in range(steps):
        x = x.map_overlap(lambda block: block, depth=1, boundary="none", dtype=x.dtype)
    return x


def climatology(x, period):
    """Anomalies from the mean of each month."""
    means = [x[month::period].mean(axis=0) for month in range(period)]
    return [(x[month::period] - means[month]).sum() for month in range(period)]


def frames(n):
    frame = pd.DataFrame({"a": np.arange(n * 10) % 7, "b": np.arange(n * 10), "c": 1.0})
    return dd.from_pandas(frame, npartitions=n)


def graphs(n):
    """`n` is about the number of pieces along one axis."""
    x = da.ones((n * 10, n * 10), chunks=(10, 10))
    y = (x + 1).map_blocks(lambda block: block, dtype=x.dtype, name="prepared")
    tall = da.ones((n * n * 10, 10), chunks=(10, 10))
    df, other = frames(n * 2), frames(n)

    yield "chains", graph_of(*chains(n * n))
    yield "tree of delayed", graph_of(pairs("sum", chains(n * n)))
    yield "sum", graph_of(x.sum())
    yield "mean along an axis", graph_of(x.mean(axis=0))
    yield "sum, pairwise", graph_of(y.sum(split_every=2))
    yield "standardise", graph_of((y - y.mean(axis=0)) / y.std(axis=0))
    yield "x + x.T", graph_of((y + y.T).sum())
    yield "matrix product", graph_of(x @ x.T)
    yield "tensordot", graph_of(da.tensordot(y, y, axes=((0,), (1,))).sum(axis=0))
    yield "rechunk", graph_of(x.rechunk((n * 10, 10)).rechunk((10, n * 10)).sum(axis=0))
    yield "cumsum", graph_of(da.cumsum(y, axis=0))
    yield "cumsum, blelloch", graph_of(da.cumsum(y, axis=0, method="blelloch"))
    yield "map_overlap", graph_of(smoothed(x, 2))
    yield "qr", graph_of(*da.linalg.qr(tall))
    yield "svd", graph_of(*da.linalg.svd(tall))
    yield "svd_compressed", graph_of(*da.linalg.svd_compressed(x, k=3, n_power_iter=2, seed=1))
    yield "cholesky", graph_of(da.linalg.cholesky(x))
    yield "climatology", graph_of(*climatology(da.ones((n * 40, n * 5), chunks=(10, 10)), 4))
    yield "projections", graph_of(*[(y[:, i * 10 : i * 10 + 10].T @ y).mean(axis=0) for i in range(4)])
    yield "bag frequencies", graph_of(db.from_sequence(range(n * 40), npartitions=n * 4).map(str).frequencies())
    yield "groupby", graph_of(df.groupby("a").agg({"b": "mean", "c": "std"}))
    yield "groupby, many outputs", graph_of(df.groupby("b").c.sum(split_out=4))
    yield "rolling", graph_of(df.b.rolling(3).mean().sum(), df.c.rolling(3).max())
    yield "shuffle", graph_of(df.shuffle("a", shuffle_method="tasks", max_branch=4))
    yield "merge", graph_of(df.merge(other, on="a", shuffle_method="tasks").c_x.sum())


def describe(name, graph):
    numbers = order(graph)
    keys = sorted(graph, key=str)
    position = {key: i for i, key in enumerate(keys)}
    return {
        "name": name,
        "needs": [sorted(position[need] for need in graph[key].dependencies) for key in keys],
        "literals": [i for i, key in enumerate(keys) if isinstance(graph[key], DataNode)],
        "orders": [[numbers[key] for key in keys]],
    }


def under_seed(seed, size):
    env = {**os.environ, "PYTHONHASHSEED": str(seed)}
    return json.loads(subprocess.check_output([sys.executable, __file__, size, "--once"], env=env))


SIZES = {"small": 5, "large": 20}


def main(size):
    for described in zip(*(under_seed(seed, size) for seed in range(HASH_SEEDS))):
        first = described[0]
        # Where there is chance in keys, nodes have other numbers in each process, and the graphs other shapes.
        same = [other["orders"][0] for other in described if other["needs"] == first["needs"]]
        first["orders"] = [numbers for i, numbers in enumerate(same) if numbers not in same[:i]]
        print(json.dumps(first, separators=(",", ":")))


if __name__ == "__main__":
    if "--once" in sys.argv:
        print(json.dumps([describe(*graph) for graph in graphs(SIZES[sys.argv[1]])]))
    else:
        main(sys.argv[1])
