"""Checks the scheduler's graph intake against dask.

Run it with a Python that has dask, distributed, numpy and pandas, after `cargo build --example take_graph`:

    DASK_PYTHON=python python scheduler/python/check_intake.py target/debug/examples/take_graph

Collections of every kind are sent through the intake. Each task that comes out must be in dependency order, must
unpickle by itself, and running all of them must give what dask's own scheduler gives.
"""

import gzip
import json
import os
import pickle
import subprocess
import sys
import tempfile
import time
import warnings

import dask
import dask.array as da
import dask.bag as db
import dask.dataframe as dd
import msgpack
import numpy as np
import pandas as pd
from dask._expr import HLGExpr, LLGExpr
from dask._task_spec import Task, TaskRef
from dask.base import collections_to_expr
from dask.core import flatten
from dask.delayed import optimize
from dask.highlevelgraph import HighLevelGraph
from distributed.protocol import serialize, to_serialize
from distributed.protocol.pickle import dumps

warnings.simplefilter("ignore")


class Intake:
    def __init__(self, program):
        self.process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def take(self, expression, keys, annotations=None):
        header, frames = serialize(to_serialize(expression), on_error="raise")
        request = {
            "header": msgpack.packb(header),
            "frames": [bytes(frame) for frame in frames],
            "keys": list(keys),
            "annotations": dumps(annotations or {}),
        }
        packed = msgpack.packb(request)
        self.process.stdin.write(len(packed).to_bytes(4, "little") + packed)
        self.process.stdin.flush()
        length = int.from_bytes(self.process.stdout.read(4), "little")
        return msgpack.unpackb(self.process.stdout.read(length), strict_map_key=False, use_list=False)


def run(reply):
    """Runs the tasks in their order; fails if a dependency is missing."""
    results = {}
    for task in sorted(reply["tasks"], key=lambda task: task["order"]):
        node = pickle.loads(task["pickle"], buffers=task["buffers"])
        needs = set(task["dependencies"])
        assert node.dependencies == needs, (node.dependencies, needs)
        results[task["key"]] = node({need: results[need] for need in needs})
    return results


def same(a, b):
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, pd.DataFrame):
        sort = {"by": list(a.columns), "ignore_index": True}
        return a.sort_values(**sort).equals(b.sort_values(**sort))
    if isinstance(a, pd.Series):
        return a.sort_index().equals(b.sort_index())
    return np.allclose(a, b) if isinstance(a, np.ndarray) else a == b


def check(intake, name, *collections, annotations=None, compute=True):
    expression = collections_to_expr(collections)
    expression = (expression.finalize_compute() if compute else expression).optimize()
    keys = expression.__dask_keys__()
    reply = intake.take(expression, list(flatten(keys)), annotations)
    assert reply["error"] is None, (name, reply["error"])
    orders = sorted(task["order"] for task in reply["tasks"])
    assert orders == sorted(set(orders)), name
    results = run(reply)
    got = [results[key] for key in flatten(keys)]
    if compute:
        expected = dask.compute(*collections, scheduler="sync")
        assert same(got, list(expected)), (name, got, expected)
    print(f"{name:36}{len(reply['tasks']):6} tasks {reply['seconds'] * 1e3:9.1f} ms")
    return reply


def expect_error(intake, name, expression, kind, text):
    reply = intake.take(expression, ["a"])
    error = reply["error"]
    assert error and kind in error and text in error, (name, error)
    exception = pickle.loads(reply["exception"])
    assert type(exception).__name__ == kind, exception
    print(f"{name:36} {error[:80]}")


class Shout:
    """A class of ``__main__``, pickled by value."""

    def __init__(self, word):
        self.word = word

    def __eq__(self, other):
        return self.word == other.word


def factorial(n):
    return 1 if n < 2 else n * factorial(n - 1)


def expression_with(optimizer):
    graph = HighLevelGraph.from_collections("a", {"a": Task("a", int)}, ())
    return HLGExpr(graph, low_level_optimizer=optimizer, output_keys=["a"])


def raise_value_error(graph, keys):
    raise ValueError("no graph today")


def leave(graph, keys):
    raise SystemExit(3)


def die(graph, keys):
    os._exit(3)


def talk(graph, keys):
    print("user code may print")
    os.write(1, b"even so\n")
    return graph


def check_collections(intake):
    inc = dask.delayed(lambda x: x + 1)
    total = dask.delayed(sum)
    check(intake, "delayed", total([inc(i) for i in range(20)]))
    check(intake, "delayed, recursive function", dask.delayed(factorial)(10))
    check(intake, "delayed, class of __main__", dask.delayed(Shout)("hey"))
    check(intake, "array sum", da.ones((1000, 1000), chunks=(100, 100)).sum())
    check(intake, "array of out-of-band buffers", da.from_array(np.arange(100_000.0), chunks=10_000).sum())
    check(intake, "svd", *da.linalg.svd(da.from_array(np.random.rand(1000, 10), chunks=(100, 10)))[1:2])
    x = da.from_array(np.random.rand(200, 200), chunks=(50, 50))
    check(intake, "anomaly", (x - x.mean(axis=0)).std())
    check(intake, "overlap", x.map_overlap(lambda b: b * 2, depth=1).sum())
    check(intake, "rechunk", x.rechunk((200, 10)).sum(axis=0))
    check(intake, "bag", db.from_sequence(range(100), npartitions=5).map(lambda i: i + 1).sum())
    frame = pd.DataFrame({"a": np.arange(2000) % 50, "b": range(2000)})
    df = dd.from_pandas(frame, npartitions=8)
    check(intake, "groupby", df.groupby("a").b.sum())
    check(intake, "merge by tasks", df.merge(df.drop_duplicates("a"), on="a", shuffle_method="tasks"))
    check(intake, "several collections", x.sum(), inc(1), df.b.sum())
    check(intake, "persist", x + 1, x.sum(axis=0), compute=False)


def check_files(intake, folder):
    for i in range(4):
        with gzip.open(f"{folder}/{i}.json.gz", "wt") as lines:
            lines.writelines(json.dumps({"n": n, "name": "ab"[n % 2]}) + "\n" for n in range(50))
        pd.DataFrame({"a": np.arange(100) % 7, "b": range(100)}).to_csv(f"{folder}/{i}.csv", index=False)
    records = db.read_text(f"{folder}/*.json.gz").map(json.loads)
    check(intake, "bag of json.gz", records.filter(lambda r: r["name"] == "a").pluck("n").sum())
    check(intake, "bag frequencies", records.pluck("name").frequencies())
    check(intake, "read_csv groupby", dd.read_csv(f"{folder}/*.csv").groupby("a").b.mean())


def check_annotations(intake):
    with dask.annotate(retries=3, resources={"GPU": 1}):
        x = da.ones((10, 10), chunks=(5, 5)) + 1
    general = {"priority": lambda key: len(str(key)), "workers": ["alice"], "resources": {"CPU": 2}}
    reply = check(intake, "annotations", x.sum(), annotations=general)
    for task in reply["tasks"]:
        assert task["priority"] == len(str(task["key"])) and task["workers"] == ("alice",), task
        layer = task["retries"] == 3
        assert task["resources"] == ((("GPU", 1.0),) if layer else (("CPU", 2.0),)), task
    graph = LLGExpr({"n": Task("n", int)})
    for value, expected in [(lambda key: 4, 4), (np.int64(7), 7), (2.5, 2.5)]:
        reply = intake.take(graph, ["n"], {"priority": value})
        assert [task["priority"] for task in reply["tasks"]] == [expected], reply
    print("annotations by function, by value")


def check_plain_graphs(intake):
    graph = {
        1: Task(1, int, 5),
        2.5: Task(2.5, lambda x: x + 1, TaskRef(1)),
        ("t", 0): Task(("t", 0), lambda x: x * 2, TaskRef(2.5)),
        "unwanted": Task("unwanted", int),
    }
    reply = intake.take(LLGExpr(graph), [("t", 0)])
    assert len(reply["tasks"]) == 3 and run(reply)[("t", 0)] == 12, reply
    legacy = {"x": 1, "y": (sum, ["x", 2]), "a": ["y", "x"]}
    reply = intake.take(LLGExpr(legacy), ["a"])
    assert run(reply)["a"] == [3, 1], reply
    circle = {"a": Task("a", int, TaskRef("b")), "b": Task("b", int, TaskRef("a"))}
    expect_error(intake, "circle", LLGExpr(circle), "RuntimeError", "Cycle detected")


def check_shuffle(intake):
    df = dd.from_pandas(pd.DataFrame({"a": range(100), "b": range(100)}), npartitions=5)
    expression = collections_to_expr([df.shuffle("a", shuffle_method="p2p")]).optimize()
    reply = intake.take(expression, list(flatten(expression.__dask_keys__())))
    ((key, count, partitions),) = reply["barriers"]
    assert key.startswith("shuffle-barrier-") and count == partitions == 5, reply["barriers"]
    print("p2p shuffle", reply["barriers"])


def check_errors(intake):
    expect_error(intake, "optimizer raises", expression_with(raise_value_error), "ValueError", "no graph today")
    expect_error(intake, "optimizer exits", expression_with(leave), "RuntimeError", "SystemExit(3)")
    expect_error(intake, "optimizer dies", expression_with(die), "RuntimeError", "exit status: 3")
    reply = intake.take(expression_with(talk), ["a"])
    assert reply["error"] is None, reply["error"]


def check_speed(intake):
    inc = dask.delayed(lambda x: x + 1)
    graph = HighLevelGraph.merge(*(inc(i, dask_key_name=f"inc-{i}").dask for i in range(5_000)))
    expression = HLGExpr(graph, low_level_optimizer=optimize, output_keys=list(graph.layers))
    start = time.perf_counter()
    reply = intake.take(expression, list(graph.layers))
    assert len(reply["tasks"]) == 5_000
    print(f"5000 delayed layers: {reply['seconds'] * 1e3:.0f} ms of {(time.perf_counter() - start) * 1e3:.0f}")


def main():
    intake = Intake(sys.argv[1])
    check_collections(intake)
    with tempfile.TemporaryDirectory() as folder:
        check_files(intake, folder)
    check_annotations(intake)
    check_plain_graphs(intake)
    check_shuffle(intake)
    check_errors(intake)
    check_collections(intake)
    check_speed(intake)
    intake.process.stdin.close()
    assert intake.process.wait(10) == 0
    print("all as dask has it")


if __name__ == "__main__":
    main()
