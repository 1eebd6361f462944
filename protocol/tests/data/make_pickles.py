"""Graphs as dask and its clients pickle them: recorded for the Rust tests, or checked against dask itself.

    python protocol/tests/data/make_pickles.py record                  # writes the .pkl, .buffers and .json files here
    cargo build -p dask-protocol --example split_pickle
    python protocol/tests/data/make_pickles.py check target/debug/examples/split_pickle [case ...]

The check loads the pickle of every task in a fresh interpreter, runs them all and compares with dask's own results.
Needs dask and distributed 2026.8.0, numpy and pandas.
"""

from __future__ import annotations

import collections
import functools
import gzip
import json
import os
import pickle
import struct
import subprocess
import sys
import tempfile
import traceback
import uuid
from operator import add, mul

import msgpack


# ---------------------------------------------------------------------------
# The splitter and the fresh interpreter.


class Splitter:
    def __init__(self, path):
        self.process = subprocess.Popen([path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def __call__(self, mode, data, buffers):
        request = msgpack.packb({"mode": mode, "pickle": data, "buffers": buffers})
        self.process.stdin.write(struct.pack("<I", len(request)) + request)
        self.process.stdin.flush()
        (length,) = struct.unpack("<I", self.process.stdout.read(4))
        return msgpack.unpackb(self.process.stdout.read(length), use_list=False, strict_map_key=False)


RUNNER = r"""
import cloudpickle, pickle, sys
tasks, wanted = pickle.load(open(sys.argv[1], "rb"))
values = {}
for key, deps, data, buffers in tasks:
    node = pickle.loads(data, buffers=buffers)
    assert set(node.dependencies) == set(deps), (key, node.dependencies, deps)
    values[key] = node({d: values[d] for d in deps})
cloudpickle.dump({k: values[k] for k in wanted}, open(sys.argv[2], "wb"))
"""


def run_fresh(tasks, wanted):
    with tempfile.TemporaryDirectory() as folder:
        source, target = os.path.join(folder, "in"), os.path.join(folder, "out")
        with open(source, "wb") as f:
            pickle.dump((tasks, wanted), f)
        env = dict(os.environ, PYTHONHASHSEED=str(os.getpid() % 1000))
        subprocess.run([sys.executable, "-c", RUNNER, source, target], check=True, env=env)
        with open(target, "rb") as f:
            return pickle.load(f)


def in_order(tasks):
    by_key = {t["key"]: t for t in tasks}
    done, order = set(), []
    for start in by_key:
        stack = [(start, False)]
        while stack:
            key, finished = stack.pop()
            if finished:
                if key not in done:
                    done.add(key)
                    order.append(by_key[key])
                continue
            if key in done:
                continue
            stack.append((key, True))
            stack.extend((d, False) for d in by_key[key]["dependencies"] if d not in done)
    return order


# ---------------------------------------------------------------------------
# User code of __main__: pickled by value.


def inc(x):
    return x + 1


def even(n):
    return True if n == 0 else odd(n - 1)


def odd(n):
    return False if n == 0 else even(n - 1)


FACTOR = 3


def scaled(x, *, offset=0, extra=None):
    return x * FACTOR + offset + (0 if extra is None else len(extra))


def closure(n):
    def inner(x):
        return x + n if x < 100 else inner(x - 1)

    return inner


class Point:
    scale = 2

    def __init__(self, x):
        self.x = x
        self.me = self

    def __eq__(self, other):
        return type(other).__name__ == "Point" and other.x == self.x

    def doubled(self):
        return Point(super().__getattribute__("x") * self.scale)


class Child(Point):
    def doubled(self):
        return super().doubled()


Pair = collections.namedtuple("Pair", "a b")


def total(*args):
    return sum(args)


def of_points(p, q):
    return p.doubled().x + q.doubled().x


# ---------------------------------------------------------------------------
# Cases: each returns (mode, object to pickle, {key: expected value} or None to run the graph here).


def materialised(*collections_):
    """What the graph helper does: optimise, materialise, convert."""
    from dask._task_spec import convert_legacy_graph
    from dask.base import collections_to_expr

    expr = collections_to_expr(collections_, optimize_graph=True)
    expr = expr.optimize() if hasattr(expr, "optimize") else expr
    return convert_legacy_graph(expr.__dask_graph__())


def llg(dsk):
    from dask._expr import LLGExpr

    return LLGExpr(dsk, _determ_token=uuid.uuid4().hex)


def map_expr(func, *iterables, key=None, pure=True, **kwargs):
    from dask.utils import funcname
    from distributed.client import _MapExpr

    expr = _MapExpr(func, iterables, key=key or funcname(func), pure=pure, annotations={}, kwargs=kwargs)
    expr.keys
    return expr


CASES = {}


def case(f):
    CASES[f.__name__] = f
    return f


@case
def submit():
    from dask._task_spec import Alias, Dict, List, Task, TaskRef

    return "expression", llg(
        {
            "a": Task("a", inc, 1),
            ("b", 0): Task(("b", 0), add, TaskRef("a"), 10),
            5: Task(5, total, Alias("a"), TaskRef(("b", 0))),
            "c": Task("c", sum, List(TaskRef("a"), 1, Alias(5))),
            "d": Alias("d", "c"),
            "e": Task("e", scaled, TaskRef("a"), offset=2, extra=Dict({"k": TaskRef("a")})),
            1.5: Task(1.5, lambda x: x, Pair(1, 2)),
        }
    )


@case
def data_nodes_and_containers():
    from dask._task_spec import DataNode, Dict, List, Set, TaskRef, Tuple

    return "expression", llg(
        {
            "x": DataNode("x", [1, 2, {"a": b"b"}]),
            "l": List(TaskRef("x"), 2),
            "t": Tuple(TaskRef("l"), TaskRef("x")),
            "d": Dict({"a": TaskRef("t")}),
            "s": Set(1, 2),
        }
    )


@case
def recursion_and_classes():
    from dask._task_spec import Task, TaskRef

    return "expression", llg(
        {
            "even": Task("even", even, 10),
            "odd": Task("odd", odd, 10),
            "closure": Task("closure", closure(5), 120),
            "point": Task("point", Point, 4),
            "child": Task("child", Child, 4),
            "both": Task("both", of_points, TaskRef("point"), TaskRef("child")),
            "literal": Task("literal", of_points, Point(1), Child(2)),
        }
    )


@case
def recursive_values():
    from dask._task_spec import Task

    loop = [1]
    loop.append((loop, {"loop": loop}))
    ring = {}
    ring["t"] = (ring, [ring], 1, 2, 3)
    return "expression", llg(
        {
            "a": Task("a", lambda l: l[1][0] is l and l[1][1]["loop"] is l, loop),
            "b": Task("b", lambda t: t[0]["t"] is t and t[1][0] is t[0], ring["t"]),
            "c": Task("c", lambda t, l: (t is l[1], l[0]), loop[1], loop),
        }
    )


@case
def numpy_buffers():
    import numpy as np
    from dask._task_spec import Task, TaskRef

    shared = np.arange(1000.0)
    dsk = {f"x-{i}": Task(f"x-{i}", np.add, np.full(100, i), shared[:100]) for i in range(20)}
    dsk |= {f"y-{i}": Task(f"y-{i}", lambda a, b, c: a.sum() + b.sum() + c, TaskRef(f"x-{i}"), shared, i) for i in range(20)}
    return "expression", llg(dsk)


@case
def shared_function():
    from dask._task_spec import Task, TaskRef

    f = closure(2)
    dsk = {f"x-{i}": Task(f"x-{i}", f, i) for i in range(300)}
    dsk["sum"] = Task("sum", total, *(TaskRef(k) for k in list(dsk)))
    return "expression", llg(dsk)


GRAPH = {}


def graph_size(x):
    return len(GRAPH) + x


@case
def function_that_holds_its_graph():
    from dask._task_spec import Task, TaskRef

    GRAPH.update({f"x-{i}": Task(f"x-{i}", graph_size, i) for i in range(10)})
    GRAPH["y"] = Task("y", add, TaskRef("x-1"), TaskRef("x-2"))
    return "expression", llg(GRAPH)


@case
def map_simple():
    return "expression", map_expr(add, [1, 2, 3], (4, 5, 6, 7))


@case
def map_main():
    return "expression", map_expr(lambda x, y: x * FACTOR + len(y), range(100), ["a" * i for i in range(100)])


@case
def map_kwargs():
    return "expression", map_expr(scaled, range(2, 20, 3), offset=4, extra="abc")


@case
def map_large_kwarg():
    import numpy as np

    return "expression", map_expr(scaled, range(5), extra=np.arange(15_000))


@case
def map_collections():
    return "expression", map_expr(lambda a, b, c: (a, b, c), "h\u00e4x", {"k": 1, 2: 3, 4: 5}, {7, 8, 9})


@case
def map_keys():
    return "expression", map_expr(inc, [1, 2, 3], key=["k1", ("k", 2), 3])


@case
def map_impure():
    return "expression", map_expr(inc, [1, 2, 3], pure=False)


@case
def map_futures():
    from dask._task_spec import TaskRef

    expr = map_expr(total, [TaskRef("given"), 2, TaskRef("other")], range(3))
    return "expression", expr, {"given": 10, "other": 20}


@case
def map_future_kwarg():
    from distributed.client import Future

    return "expression", map_expr(scaled, range(3), offset=Future("given")), {"given": 10}


@case
def map_nested_future():
    from dask._task_spec import TaskRef

    return "python", map_expr(sum, [[TaskRef("given"), 2]])


@case
def legacy():
    return "expression", llg({"a": 1, "b": (inc, "a")})


@case
def legacy_everything():
    import numpy as np

    graph = {
        "a": 1,
        "b": (inc, "a"),
        "alias": "b",
        "plain": "no key",
        ("t", 0): (add, "a", (mul, "b", 10)),
        ("t", 1): (sum, ["a", "b", ("t", 0), [1, 2][0]]),
        5: (inc, 2.0),
        2.5: (total, 5, "a", True),
        "nested": [["a", ("t", 0)], ("b", "text", {"k": "a"}), None],
        "tuple of data": (1, "x", (2, 3)),
        "set": {"a", "other"},
        "dict": (len, {"a": 1, "b": 2}),
        "array": (np.sum, np.arange(5)),
        "lambda": (lambda x, y: (x, y), "a", ["b"]),
        "partial": (functools.partial(add, 3), "b"),
        "bytes": b"a",
        "self": "self",
    }
    return "expression", llg(graph)


@case
def legacy_shared_list():
    """All to all: each of many tasks reads the same many, from one list."""
    parts = [("from", i) for i in range(40)]
    graph = {key: (inc, i) for i, key in enumerate(parts)}
    return "expression", llg(graph | {("to", i): (total, (sum, parts), (len, parts), i) for i in range(40)})


@case
def legacy_object_head():
    return "python", llg({"a": (functools.reduce, add, [1, 2]), "b": (collections.Counter("aab"), "a")})


@case
def legacy_future_inside():
    from dask._task_spec import TaskRef

    return "python", llg({"a": (inc, {"x": TaskRef("elsewhere")})})


@case
def delayed_expression():
    import dask

    d = dask.delayed(inc)(1)
    from dask.base import collections_to_expr

    return "python", collections_to_expr((d,))


@case
def delayed():
    import dask

    @dask.delayed
    def f(x, y=1):
        return x * y

    @dask.delayed(pure=True)
    def g(xs):
        return sum(xs)

    parts = [f(i, y=i + 1) for i in range(50)]
    return "dict", materialised(g(parts), f(g(parts[:3]), 2))


@case
def svd():
    import dask.array as da

    x = da.random.RandomState(3).normal(size=(400, 40), chunks=(100, 40))
    u, s, v = da.linalg.svd(x)
    return "dict", materialised(u, s, v)


@case
def array_fused():
    import dask.array as da
    import numpy as np

    x = da.from_array(np.arange(400.0).reshape(20, 20), chunks=5)
    y = (x + x.T - 1).map_blocks(lambda b: b * 2).sum(axis=0)
    return "dict", materialised(y, (x @ x).mean())


@case
def bag():
    import dask.bag as db

    folder = tempfile.mkdtemp()
    for i in range(4):
        with gzip.open(os.path.join(folder, f"{i}.json.gz"), "wt") as f:
            for j in range(25):
                f.write(json.dumps({"n": j % 5, "v": i * j}) + "\n")
    records = db.read_text(os.path.join(folder, "*.json.gz")).map(json.loads)
    counts = records.pluck("n").frequencies()
    totals = records.foldby("n", lambda acc, r: acc + r["v"], 0, add, 0)
    return "dict", materialised(counts, totals)


@case
def dataframe_groupby():
    import dask.dataframe as dd
    import pandas as pd

    df = pd.DataFrame({"k": list("abcd") * 25, "v": range(100), "w": [0.5] * 100})
    ddf = dd.from_pandas(df, npartitions=8)
    out = ddf[ddf.v > 10].assign(z=lambda d: d.v * 2).groupby("k").agg({"v": "sum", "z": "mean"})
    return "dict", materialised(out)


@case
def dataframe_merge():
    import dask
    import dask.dataframe as dd
    import pandas as pd

    left = dd.from_pandas(pd.DataFrame({"k": range(100), "v": range(100)}), npartitions=4)
    right = dd.from_pandas(pd.DataFrame({"k": range(0, 100, 3), "w": range(34)}), npartitions=3)
    with dask.config.set({"dataframe.shuffle.method": "tasks"}):
        return "dict", materialised(left.merge(right, on="k"))


@case
def barrier():
    """The layout of P2PBarrierTask; its function needs a cluster, so that this is not run."""
    from dask._task_spec import Task, TaskRef
    from distributed.shuffle._core import P2PBarrierTask

    return "unrun", {"a": Task("a", inc, 1), "b": P2PBarrierTask("b", inc, "id", TaskRef("a"), spec=Point(1))}


@case
def user_subclass():
    from dask._task_spec import Task, TaskRef

    class Mine(Task):
        __slots__ = ()

    return "dict", {"a": Task("a", inc, 1), "b": Mine("b", inc, TaskRef("a"))}


@case
def big_shared():
    """A hundred thousand tasks: time and size."""
    from dask._task_spec import Task, TaskRef

    dsk = {("x", i): Task(("x", i), inc, i) for i in range(50_000)}
    dsk |= {("y-0123456789abcdef0123456789abcdef", i): Task(("y-0123456789abcdef0123456789abcdef", i), scaled, TaskRef(("x", i)), offset=i) for i in range(50_000)}
    return "dict", dsk


@case
def big_map():
    return "expression", map_expr(scaled, range(100_000), offset=2)


# ---------------------------------------------------------------------------


def expected_values(mode, obj, given):
    from dask._task_spec import execute_graph

    if mode == "unrun":
        return {k: v.dependencies for k, v in obj.items()}, {}
    dsk = obj if mode == "dict" else obj.__dask_graph__()
    from dask._task_spec import convert_legacy_graph

    dsk = convert_legacy_graph(dsk)
    return {k: v.dependencies for k, v in dsk.items()}, execute_graph(dsk, cache=dict(given))


def same(a, b):
    import numpy as np
    import pandas as pd

    if isinstance(a, np.ndarray):
        return np.array_equal(a, b)
    if isinstance(a, (pd.DataFrame, pd.Series, pd.Index)):
        return a.equals(b)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (set, frozenset)):
        return a == b
    if type(a).__module__ in ("builtins", "numpy"):
        return a == b
    # An object by value has another class here and there.
    return type(a).__name__ == type(b).__name__


def pickled(name):
    from distributed.protocol.pickle import dumps

    mode, obj, *rest = CASES[name]()
    buffers = []
    data = dumps(obj, buffer_callback=buffers.append)
    return mode, obj, rest[0] if rest else {}, data, [bytes(b.raw()) for b in buffers]


CLASSES = {"P2PBarrierTask": "P2PBarrier", "List": "Container", "Tuple": "Container", "Set": "Container", "Dict": "Container"}


def described(dsk):
    """What the Rust side should find, as JSON."""
    classes = {"Task", "Alias", "DataNode"}
    for key, node in dsk.items():
        name = type(node).__name__
        yield {
            "key": key,
            "dependencies": sorted(node.dependencies, key=str),
            "class": CLASSES.get(name, name if name in classes else "Other"),
            "data_producer": node.data_producer,
        }


def record():
    """Writes the cases that are not about size."""
    from dask._task_spec import convert_legacy_graph

    folder = os.path.join(os.path.dirname(os.path.abspath(__file__)), "graphs")
    os.makedirs(folder, exist_ok=True)
    for name in CASES:
        if name.startswith("big_"):
            continue
        mode, obj, _, data, buffers = pickled(name)
        tasks = None
        if mode != "python":
            dsk = convert_legacy_graph(obj if mode in ("dict", "unrun") else obj.__dask_graph__())
            tasks = list(described(dsk))
        path = os.path.join(folder, name)
        with open(path + ".pkl", "wb") as f:
            f.write(data)
        if buffers:
            with open(path + ".buffers", "wb") as f:
                for buffer in buffers:
                    f.write(struct.pack("<I", len(buffer)) + buffer)
        with open(path + ".json", "w") as f:
            json.dump({"mode": mode, "tasks": tasks}, f, default=list)
            f.write("\n")


def check(name, split):
    from distributed.protocol.pickle import dumps

    mode, obj, given, data, buffers = pickled(name)
    reply = split("dict" if mode in ("dict", "unrun") else "expression", data, buffers)
    if mode == "python":
        assert reply["needs_python"] and not reply["error"], reply
        return f"needs python: {reply['needs_python']}"
    assert not reply["error"] and not reply["needs_python"], (reply["error"], reply["needs_python"])
    tasks = reply["tasks"]
    dependencies, values = expected_values(mode, obj, given)
    assert [t["key"] for t in tasks] == list(dependencies), "same keys in the same order"
    for t in tasks:
        assert set(t["dependencies"]) == set(dependencies[t["key"]]), t["key"]
    prefixes = {t["prefix"] for t in tasks}
    stats = (
        f"{len(tasks)} tasks, {len(buffers)} buffers, {len(data)} bytes -> {sum(map(len, prefixes))} in "
        f"{len(prefixes)} prefixes + {sum(len(t['body']) for t in tasks)}; {reply['seconds'] / max(1, len(tasks)) * 1e6:.1f} us a task"
    )
    if mode == "unrun":
        return stats
    order = in_order([{"key": k, "dependencies": ()} for k in given] + list(tasks))
    runnable = [
        (k, (), dumps(__import__("dask")._task_spec.DataNode(k, given[k])), [])
        if k in given
        else (k, t["dependencies"], t["prefix"] + t["body"], [bytearray(b) for b in t["buffers"]])
        for t in order
        for k in [t["key"]]
    ]
    keys = [k for k in dependencies]
    got = run_fresh(runnable, keys[:2000])
    for k in keys[:2000]:
        assert same(values[k], got[k]), (k, values[k], got[k])
    return stats


def check_exceptions(split):
    """The exceptions a scheduler sends are what upstream would raise."""
    found = [(text, pickle.loads(data)) for text, data in split("exceptions", b"", [])["pickles"]]
    for text, exception in found:
        print(f"     {text!s}  ->  {exception!r}: {exception}")
        if type(exception).__name__ != "KilledWorker":
            assert repr(exception).split("(")[0] == text.split("(")[0], (text, exception)
    assert found[-1][1].__notes__ == ["a note"]
    assert found[0][1].last_worker.address == "tcp://127.0.0.1:1"


def check_plain(split):
    """Plain values survive being read and written, objects among them."""
    import numpy as np
    from distributed.client import SourceCode
    from distributed.protocol.pickle import dumps

    for value in [
        {"a": [1, -1, 2**40, -(2**63), 2**63, 2**64 - 1, 1.5, float("inf"), None, True, False]},
        {"workers": ["tcp://a:1"], "resources": {"GPU": 1}, "s": {1, 2}, "f": frozenset("a"), ("t",): (1, (2,))},
        ("h\u00e4", "\ud800", b"bytes" * 100, "x" * 300, "y" * 70_000),
        (SourceCode("code", 1, 2, "file"),),
        {"array": np.arange(5).tolist(), "scalar": np.int64(5), "f": add, "point": Pair},
        [[], {}, (), set(), frozenset(), "", b""],
        {"span": {"name": ("a", "b"), "ids": ("1", "2")}, "collections": [{"type": "Future"}]},
    ]:
        for protocol in range(6):
            data = pickle.dumps(value, protocol=protocol) if Pair not in list(value.values() if isinstance(value, dict) else ()) else dumps(value)
            reply = split("plain", data, [])
            assert not reply["error"], (value, protocol, reply["error"])
            back = pickle.loads(reply["pickles"][0][1])
            if Pair in list(value.values() if isinstance(value, dict) else ()):
                assert back.keys() == value.keys() and back["scalar"] == 5 and back["f"] is add
            else:
                assert repr(back) == repr(value) or back == value, (value, back)
    buffers = []
    data = pickle.dumps({"x": np.arange(5)}, protocol=5, buffer_callback=buffers.append)
    reply = split("plain", data, [bytes(b.raw()) for b in buffers])
    assert (pickle.loads(reply["pickles"][0][1])["x"] == np.arange(5)).all()
    assert split("plain", pickle.dumps(2**64), [])["error"]


def main():
    if sys.argv[1:] == ["record"]:
        return record()
    _, command, splitter, *names = sys.argv
    assert command == "check", command
    split = Splitter(splitter)
    failures = 0
    if not names:
        check_exceptions(split)
        check_plain(split)
    for name in names or CASES:
        try:
            print(f"ok   {name}: {check(name, split)}")
        except Exception:
            failures += 1
            print(f"FAIL {name}")
            traceback.print_exc()
    sys.exit(failures)


if __name__ == "__main__":
    main()
