"""What makes dask's graph nodes quick to build, unpickle and pickle. Goes before `materialize.py`, in one program with it.

A graph has several nodes a task, and dask spends most of its time in their methods: reading the names of slots, calling
constructors, finding out how to be pickled. Here is the same for what nearly all nodes are, an exact `Task`; subclasses keep
their own methods. Each part is tried out first, and left alone where this dask has other nodes than the ones known.
"""

import copyreg
import io
import operator
import pickle

# The slots of a task in the order of its pickled state.
SLOTS = ["_data_producer", "_dependencies", "_is_coro", "_repr", "_token", "args", "func", "key", "kwargs"]

# Pickles of graphs, as `pickle_graph` makes them. Filled by `make_nodes_quick`.
REDUCERS = {}


def make_nodes_quick():
    """Replaces what is slow, as far as it does the same."""
    import dask._task_spec as spec

    if spec.Task.get_all_slots() != SLOTS:
        return
    make_unpickling_quick(spec)
    if getattr(spec, "_extra_args", lambda kind: None)(spec.Task) == {"key", "func", "_data_producer"}:
        make_substitution_quick(spec)
        make_fusing_quick(spec)
    for kind, reduce in reducers(spec).items():
        if all(pickle.dumps(node, protocol=5) == quick_pickle({kind: reduce}, node) for node in examples(spec, kind)):
            REDUCERS[kind] = reduce


def make_unpickling_quick(spec):
    general = spec.Task.__setstate__
    Task = spec.Task

    def restore(self, state):
        if type(self) is not Task:
            return general(self, state)
        (
            self._data_producer,
            self._dependencies,
            self._is_coro,
            self._repr,
            self._token,
            self.args,
            self.func,
            self.key,
            self.kwargs,
        ) = state

    Task.__setstate__ = restore


def make_substitution_quick(spec):
    """`Task.substitute` without reading the constructor's signature, and without a constructor where only the key is new, which is
    what fusing a task with nothing comes to."""
    general = spec.Task.substitute
    Task = spec.Task
    node_or_reference = (spec.GraphNode, spec.TaskRef)

    def substitute(self, subs, key=None):
        if type(self) is not Task:
            return general(self, subs, key=key)
        changed = {}
        if subs:
            for need in self._dependencies:
                if need in subs and subs[need] != need:
                    changed[need] = subs[need]
        if changed:
            args = [arg.substitute(changed) if isinstance(arg, node_or_reference) else arg for arg in self.args]
            kwargs = {
                name: arg.substitute(changed) if isinstance(arg, node_or_reference) else arg
                for name, arg in self.kwargs.items()
            }
            return Task(key or self.key, self.func, *args, _data_producer=self._data_producer, **kwargs)
        if key is None or key == self.key:
            return self
        return new_task(Task, key, self.func, self.args, dict(self.kwargs), self._dependencies, self._data_producer)

    Task.substitute = substitute


def new_task(Task, key, func, args, kwargs, dependencies, data_producer):
    """A task whose dependencies are known."""
    task = Task.__new__(Task)
    task.key = key
    task.func = func
    task.args = args
    task.kwargs = kwargs
    task._dependencies = dependencies
    task._data_producer = data_producer
    task._is_coro = task._token = task._repr = None
    return task


def make_fusing_quick(spec):
    """`fuse_linear_task_spec` with one dict of what depends on what, in which each edge is looked at once."""
    import sys

    from dask.optimization import default_fused_keys_renamer

    Task, Alias, TaskRef = spec.Task, spec.Alias, spec.TaskRef
    known = spec.fuse_linear_task_spec
    several = object()

    def fuse_linear(dsk, keys):
        wanted = set(keys)
        # The only node that needs this one; `several` if there are more.
        only = {}
        for key, node in dsk.items():
            for need in node.dependencies:
                only[need] = several if need in only else key
        seen = set()
        result = {}
        for key, node in dsk.items():
            if key in seen:
                continue
            seen.add(key)
            needs = node.dependencies
            above = only.get(key, several)
            if len(needs) != 1 and above is several or node.block_fusion:
                result[key] = node
                continue
            # From the root to the leaf, and turned round once.
            chain = [node]
            while len(needs) == 1:
                (below,) = needs
                if below in seen:
                    break
                seen.add(below)
                lower = dsk.get(below)
                if lower is None:
                    # A future's key.
                    break
                if only[below] is several or lower.block_fusion or below in wanted:
                    result[below] = lower
                    break
                chain.append(lower)
                needs = lower.dependencies
            chain.reverse()
            top = key
            while above is not several and top not in wanted and above not in seen:
                seen.add(above)
                upper = dsk[above]
                if len(upper.dependencies) != 1 or upper.block_fusion:
                    result[above] = upper
                    break
                chain.append(upper)
                top = above
                above = only.get(top, several)
            if len(chain) == 1:
                result[top] = node
                continue
            name = default_fused_keys_renamer([part.key for part in chain])
            result[name] = fused(chain, name)
            if name != top:
                result[top] = Alias(top, target=name)
        return result

    def fused(chain, name):
        if name is None or any(part.key is None for part in chain):
            return Task.fuse(*chain, key=name)
        inner = {part.key: part for part in chain}
        outside = chain[0].dependencies
        if len(inner) != len(chain) or not outside.isdisjoint(inner):
            return Task.fuse(*chain, key=name)
        needs = tuple(sorted(outside, key=hash))
        references = [TaskRef(need) for need in needs]
        args = (inner, chain[-1].key, needs, *references)
        producer = any(part.data_producer for part in chain)
        return new_task(Task, name, spec._execute_subgraph, args, {}, frozenset(outside), producer)

    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == "dask" and getattr(module, "fuse_linear_task_spec", None) is known:
            module.fuse_linear_task_spec = fuse_linear


def reducers(spec):
    """For each kind of node what `__reduce_ex__` gives, found without looking for it."""
    state_of_task = operator.attrgetter(*SLOTS)
    task_only = (spec.Task,)

    def task(node):
        return copyreg.__newobj__, task_only, state_of_task(node)

    def reference(node, kind=spec.TaskRef):
        return kind, (node.key,)

    def alias(node, kind=spec.Alias):
        return kind, (node.key, node.target)

    found = {spec.Task: task, spec.TaskRef: reference, spec.Alias: alias}
    for kind in (spec.List, spec.Tuple, spec.Set, spec.Dict):
        found[kind] = container_reducer(kind)
    return found


def container_reducer(kind):
    slots = kind.get_all_slots()
    state_of = operator.attrgetter(*slots)
    kwargs_slot = slots.index("kwargs")
    only = (kind,)

    def container(node):
        state = list(state_of(node))
        # The class has it too.
        kwargs = state[kwargs_slot] = dict(state[kwargs_slot])
        kwargs.pop("constructor", None)
        return copyreg.__newobj__, only, state

    return container


def examples(spec, kind):
    """Nodes of a kind, with and without dependencies."""
    if kind is spec.Task:
        shared = spec.TaskRef("a")
        return [
            spec.Task("k", len),
            spec.Task(("k", 0), max, shared, shared, spec.Task(None, min, 1), key=len, _data_producer=True),
        ]
    if kind is spec.TaskRef:
        return [spec.TaskRef(("a", 1))]
    if kind is spec.Alias:
        return [spec.Alias("a"), spec.Alias("b", "a")]
    if kind is spec.Dict:
        return [spec.Dict({"a": 1, "b": spec.TaskRef("c")})]
    return [kind(), kind(1, spec.TaskRef("c"))]


def quick_pickle(table, value):
    stream = io.BytesIO()
    pickler = pickle.Pickler(stream, protocol=5)
    pickler.dispatch_table = table
    pickler.dump(value)
    return stream.getvalue()


def pickle_graph(graph, buffer_callback):
    """What `distributed.protocol.pickle.dumps` gives for a graph: a pickle that refers to everything by name if that can be, then
    one in which dask's serializers help, else cloudpickle's; always the latter if something is of `__main__`."""
    import cloudpickle
    from distributed.protocol import pickle as dasks

    def attempt(kind):
        buffers = []
        stream = io.BytesIO()
        kind(stream, protocol=5, buffer_callback=buffers.append).dump(graph)
        return stream.getvalue(), buffers

    try:
        try:
            pickled, buffers = attempt(NodePickler)
        except Exception:
            pickled, buffers = attempt(with_reducers(dasks._DaskPickler))
        by_name = b"__main__" not in pickled
    except Exception:
        by_name = False
    if not by_name:
        pickled, buffers = attempt(with_reducers(cloudpickle.Pickler))
    for buffer in buffers:
        buffer_callback(buffer)
    return pickled


class NodePickler(pickle.Pickler):
    @property
    def dispatch_table(self):
        return {**copyreg.dispatch_table, **REDUCERS}


def with_reducers(kind):
    """A kind of pickler that has a way of its own for everything but nodes."""

    class Pickler(kind):
        def reducer_override(self, value):
            reduce = REDUCERS.get(type(value))
            return super().reducer_override(value) if reduce is None else reduce(value)

    return Pickler


