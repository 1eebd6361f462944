"""The scheduler's graph helper replaces some of dask's methods by quicker ones: they do the same."""

import operator
import pathlib
import pickle
import random
import sys

import dask._task_spec as spec
import pytest
from dask._task_spec import Alias, DataNode, Dict, List, Task, TaskRef, fuse_linear_task_spec
from distributed.protocol import pickle as dasks

PROGRAM = pathlib.Path(__file__).parents[2] / "scheduler" / "python" / "graph_nodes.py"


@pytest.fixture
def quick(monkeypatch):
    """The names of the helper's program, once it has replaced what it replaces."""
    fusing = [module for name, module in sys.modules.items() if name.partition(".")[0] == "dask"]
    fusing = [(module, "fuse_linear_task_spec") for module in fusing if hasattr(module, "fuse_linear_task_spec")]
    for owner, name in [(Task, "__setstate__"), (Task, "substitute"), *fusing]:
        # Put back afterwards.
        monkeypatch.setattr(owner, name, getattr(owner, name))
    names = {}
    exec(compile(PROGRAM.read_text(), str(PROGRAM), "exec"), names)

    def start():
        names["make_nodes_quick"]()
        return names

    return start


def plain(node):
    """What a node comes to, to be compared: two nodes are equal for dask if they are named and do the same."""
    if isinstance(node, Task):
        kwargs = {name: plain(value) for name, value in node.kwargs.items() if name != "constructor"}
        args = [plain(value) for value in node.args]
        return [type(node), node.key, node.func, args, kwargs, node.dependencies, node.data_producer]
    if isinstance(node, Alias):
        return [Alias, node.key, node.target, node.dependencies]
    if isinstance(node, DataNode):
        return [DataNode, node.key, plain(node.value)]
    if isinstance(node, TaskRef):
        return [TaskRef, node.key]
    if isinstance(node, dict):
        return [(key, plain(value)) for key, value in node.items()]
    if type(node) in (list, tuple):
        return [type(node), [plain(value) for value in node]]
    return node


def keyword(*args, **kwargs):
    return args, kwargs


def drawn_node(draw, key, others):
    kind = draw.choice(["call", "call", "call", "call", "data", "alias", "list", "nested", "keyword", "producer"])
    needs = [TaskRef(other) for other in draw.sample(others, min(len(others), draw.choice([0, 1, 1, 1, 2, 3])))]
    if kind == "alias" and others:
        return Alias(key, draw.choice(others))
    if kind == "data":
        return DataNode(key, draw.random())
    if kind == "list":
        return Task(key, keyword, List(*needs, 1), Dict({"a": 1}))
    if kind == "nested":
        return Task(key, keyword, Task(None, operator.neg, *needs[:1] or [1]), 2)
    if kind == "keyword":
        return Task(key, keyword, 1, **{f"arg{i}": need for i, need in enumerate(needs)})
    return Task(key, keyword, *needs, 3.5, _data_producer=kind == "producer")


class BlockingTask(Task):
    @property
    def block_fusion(self):
        return True


def drawn_graph(seed):
    """A graph with chains, joins and forks, and the keys wanted of it."""
    draw = random.Random(seed)
    graph = {}
    for number in range(draw.randrange(1, 40)):
        name = draw.choice(["x", "sum-partial", "getitem"]) + f"-{number:032x}"
        key = draw.choice([name, (name, number), (name, 0, number)])
        near = [other for other in list(graph)[-4:]] + ["a key that is elsewhere"] * (draw.random() < 0.05)
        graph[key] = drawn_node(draw, key, near)
        if draw.random() < 0.03:
            graph[key] = BlockingTask(key, keyword, *map(TaskRef, near[:1]))
    keys = list(graph)
    wanted = draw.sample(keys, min(len(keys), draw.choice([0, 1, 1, 3])))
    draw.shuffle(keys)
    return {key: graph[key] for key in keys}, wanted


def test_chains_are_fused_as_dask_fuses_them(quick):
    drawn = [drawn_graph(seed) for seed in range(400)]
    expected = [plain(fuse_linear_task_spec(graph, wanted)) for graph, wanted in drawn]
    quick()
    assert spec.fuse_linear_task_spec is not fuse_linear_task_spec
    found = [plain(spec.fuse_linear_task_spec(graph, wanted)) for graph, wanted in drawn]
    assert found == expected
    assert any(part[1][2] is spec._execute_subgraph for graph in found for part in graph if part[1][0] is Task)


def test_names_are_substituted_as_dask_substitutes_them(quick):
    def all_of(graph):
        keys = list(graph)
        for node in filter(lambda node: type(node) is Task, graph.values()):
            for subs in [{}, {keys[0]: "new"}, {key: ("new", 1) for key in keys}, {keys[-1]: DataNode(None, 1)}]:
                for key in [None, node.key, "renamed"]:
                    yield plain(node.substitute(subs, key=key))

    graphs = [drawn_graph(seed)[0] for seed in range(100)]
    general = Task.substitute
    expected = [list(all_of(graph)) for graph in graphs]
    quick()
    assert Task.substitute is not general
    assert [list(all_of(graph)) for graph in graphs] == expected


def test_graphs_are_pickled_as_dask_pickles_them(quick):
    graphs = [drawn_graph(seed)[0] for seed in range(100)]
    names = quick()
    assert len(names["REDUCERS"]) == 7
    for graph in graphs:
        buffers = []
        pickled = names["pickle_graph"](graph, buffers.append)
        assert pickled == dasks.dumps(graph, protocol=5)
        assert plain(pickle.loads(pickled)) == plain(graph)
        assert not buffers


def test_functions_without_a_module_are_pickled_by_value(quick):
    graph = {i: Task(i, lambda x, by=i: x + by, 1) for i in range(3)}
    names = quick()
    back = pickle.loads(names["pickle_graph"](graph, lambda buffer: None))
    assert [node() for node in back.values()] == [1, 2, 3]


def test_large_buffers_stay_outside_the_pickle(quick):
    numpy = pytest.importorskip("numpy")
    graph = {"x": Task("x", keyword, numpy.arange(10_000))}
    names = quick()
    buffers = []
    pickled = names["pickle_graph"](graph, buffers.append)
    assert len(pickled) < 1_000 and len(buffers) == 1
    (back,) = pickle.loads(pickled, buffers=buffers)["x"].args
    assert (back == numpy.arange(10_000)).all()


def test_what_cannot_be_pickled_is_an_error(quick):
    graph = {"x": Task("x", keyword, (i for i in range(3)))}
    names = quick()
    with pytest.raises(TypeError, match="generator"):
        names["pickle_graph"](graph, lambda buffer: None)
