"""Graph helper of the dask-rs scheduler.

Some graphs only come into being by running Python: the optimizers of delayed, bag, array and dataframe run on the
scheduler's side. The scheduler keeps this program as a child process for them. It reads requests from standard input and
answers on standard output, one at a time; every other use of standard output, by user code, goes to standard error.

A message is a list of frames: their number, the length of each (unsigned 64 bit, little endian), then the frames. Frame 0
is a msgpack map, the others are referred to by position. The first message is the helper's own: JSON, whether it is fit
for service. A request has ``op``, one of ``OPERATIONS``. A reply has ``status``: ``ok`` or ``error``; errors carry the
pickled exception, for the user to see what really happened.

The end of standard input ends the process, whatever user code is doing.

`graph_nodes.py` goes before this file, in one program with it.
"""

import gc
import json
import os
import queue
import struct
import sys
import threading
import time

LENGTH = struct.Struct("<Q")

# At most one part in so many of the time goes into looking at every object there is.
SHARE_OF_COLLECTIONS = 20

# What a pickled annotation value is marked with in an annotation table; plain values are marked 0.
PLAIN, PICKLED = 0, 1


class Channel:
    """Messages over the standard streams, which nobody else can reach afterwards."""

    def __init__(self):
        self._input = os.fdopen(os.dup(0), "rb", buffering=1 << 20)
        self._output = os.fdopen(os.dup(1), "wb", buffering=1 << 20)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        os.dup2(2, 1)
        sys.stdin = open(0, closefd=False)
        sys.stdout = open(1, "w", buffering=1, errors="backslashreplace", closefd=False)

    def receive(self):
        count = LENGTH.unpack(self._exactly(LENGTH.size))[0]
        lengths = struct.unpack("<%dQ" % count, self._exactly(LENGTH.size * count))
        return [self._exactly(length) for length in lengths]

    def _exactly(self, length):
        data = self._input.read(length)
        if len(data) < length:
            raise EOFError
        return data

    def send(self, frames):
        lengths = [len(frame) for frame in frames]
        self._output.write(struct.pack("<%dQ" % (1 + len(frames)), len(frames), *lengths))
        for frame in frames:
            self._output.write(frame)
        self._output.flush()

    def requests(self):
        """A queue of what arrives. The end of input ends the process at once."""
        waiting = queue.SimpleQueue()

        def read():
            try:
                while True:
                    waiting.put(self.receive())
            except BaseException:
                os._exit(0)

        threading.Thread(target=read, name="dask-rs-requests", daemon=True).start()
        return waiting


class Leftovers:
    """What requests leave behind in cycles, collected between them.

    A collection of everything looks at each object of numpy and pandas, once they are imported, and takes longer than most
    graphs. So after each request only what came since the last one is looked at; what is imported is not looked at again.
    """

    def __init__(self):
        self._keep()

    def _keep(self):
        gc.collect()
        gc.freeze()
        self._modules = len(sys.modules)
        self._next = time.monotonic()

    def collect(self):
        began = time.monotonic()
        if len(sys.modules) > self._modules:
            self._keep()
        elif began < self._next:
            gc.collect(0)
        else:
            gc.collect()
            ended = time.monotonic()
            self._next = ended + (ended - began) * SHARE_OF_COLLECTIONS


class Reply:
    """A reply in the making: a map, and frames it refers to."""

    def __init__(self):
        self.body = {}
        self.frames = [b""]

    def attach(self, frame):
        self.frames.append(frame)
        return len(self.frames) - 1

    def finish(self):
        import msgpack

        self.frames[0] = msgpack.packb(self.body, use_bin_type=True)
        return self.frames


DIFFERENT_ENVIRONMENTS = (
    "Error during deserialization of the task graph. This frequently occurs if the Scheduler and Client have different "
    "environments (the scheduler's graphs are built by {}). For more information, see "
    "https://docs.dask.org/en/stable/deployment-considerations.html#consistent-software-environments"
)


def load_expression(body, frames):
    import msgpack
    from distributed.protocol.serialize import deserialize

    first, count = body["expression"]
    header = msgpack.loads(frames[first], raw=False, use_list=False, strict_map_key=False)
    # The scheduler has joined and decompressed the frames.
    for settled in ("compression", "split-num-sub-frames", "split-offsets"):
        header.pop(settled, None)
    try:
        return deserialize(header, frames[first + 1 : first + 1 + count])
    except Exception as error:
        raise RuntimeError(DIFFERENT_ENVIRONMENTS.format(sys.executable)) from error


def load_annotations(body, frames):
    """The annotations that apply to the whole graph; nothing if there are none."""
    from distributed.protocol import pickle

    if body.get("annotations") is None:
        return {}
    first, count = body["annotations"]
    return pickle.loads(frames[first], buffers=frames[first + 1 : first + count]) or {}


def cull(graph, wanted):
    """The part of ``graph`` that ``wanted`` reaches, in the order of ``graph``."""
    if not isinstance(wanted, (set, frozenset)):
        wanted = set(wanted)
    if len(graph) == 1:
        return graph if wanted.issuperset(graph) else {}
    if len(graph) < len(wanted):
        waiting = [key for key in graph if key in wanted]
    else:
        waiting = [key for key in wanted if key in graph]
    reached = set()
    while waiting:
        key = waiting.pop()
        if key in reached:
            continue
        reached.add(key)
        waiting.extend(need for need in graph[key].dependencies if need in graph and need not in reached)
    if len(reached) == len(graph):
        return graph
    return {key: node for key, node in graph.items() if key in reached}


def make_layer_culling_linear():
    """Replaces dask's culling of one layer.

    Culling a high level graph asks every layer about all keys still wanted. dask's own function looks at each of them, so
    a graph of many small layers, as delayed makes them, takes quadratic time: minutes for 50,000 calls. This one looks at
    the smaller of the two, and a layer of which everything is wanted stays as it is.
    """
    import dask._task_spec
    from dask.highlevelgraph import MaterializedLayer

    if not hasattr(dask._task_spec, "cull"):
        return
    dask._task_spec.cull = lambda graph, keys: graph if len(graph) == len(keys) else cull(graph, keys)
    general = MaterializedLayer.cull

    def cull_layer(self, keys, all_hlg_keys):
        graph = self.mapping
        if type(self) is not MaterializedLayer or type(graph) is not dict or self.has_legacy_tasks:
            return general(self, keys, all_hlg_keys)
        kept = graph if len(graph) == len(keys) else cull(graph, keys)
        layer = self if kept is graph else MaterializedLayer(kept, annotations=self.annotations)
        return layer, {key: set(node.dependencies) for key, node in kept.items()}

    MaterializedLayer.cull = cull_layer


def annotation_columns(keys, for_all, by_type):
    """One column per annotation: ``[name, values, [[position of key, position of value], ...]]``.

    Annotations of layers (``by_type``) go before those of the whole graph, unless they are ``None``.
    """
    columns = []
    for name in dict.fromkeys([*for_all, *by_type]):
        of_layer = by_type.get(name, {})
        general = for_all.get(name)
        column = Column(name)
        for position, key in enumerate(keys):
            value = of_layer.get(key)
            if value is None or type(value).__name__ == "_AnnotationsTombstone":
                if name not in for_all:
                    continue
                value = general(key) if callable(general) else general
            column.add(position, value)
        columns.append(column.finish())
    return columns


class Column:
    """The values of one annotation; values that are one object are sent once."""

    def __init__(self, name):
        self.name = name
        self.values = []
        self.entries = []
        self._position_of = {}
        self._alive = []

    def add(self, position, value):
        at = self._position_of.get(id(value))
        if at is None:
            at = self._position_of[id(value)] = len(self.values)
            self._alive.append(value)
            self.values.append(packable(value))
        self.entries.append((position, at))

    def finish(self):
        return [self.name, self.values, self.entries]


def packable(value):
    """``value`` marked, as msgpack can carry it or else pickled."""
    from distributed.protocol import pickle

    try:
        return [PLAIN, plain(value)]
    except TypeError:
        return [PICKLED, pickle.dumps(value)]


def plain(value):
    """``value`` in dask's msgpack conventions; ``TypeError`` if it has no such form."""
    kind = type(value)
    if value is None or kind in (bool, str, bytes, float):
        return value
    if kind is int:
        if not -(1 << 63) <= value < (1 << 64):
            raise TypeError(value)
        return value
    if kind in (list, tuple):
        return [plain(item) for item in value]
    if kind in (set, frozenset):
        return {"__Set__": True, "as-list": [plain(item) for item in value]}
    if kind is dict:
        if not all(type(name) in (str, int, float) for name in value):
            raise TypeError(kind)
        return {name: plain(item) for name, item in value.items()}
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        return plain(value.item())
    raise TypeError(kind)


def barrier_facts(graph, reply):
    """What placing the outputs of each P2P shuffle takes.

    A shuffle puts output partition ``p`` on worker ``workers[len(workers) * index // count]``. Asking for the worker
    among as many as there are partitions yields the index, without knowing the kind of shuffle.
    """
    core = sys.modules.get("distributed.shuffle._core")
    if core is None:
        return []
    from distributed.protocol import pickle

    facts = []
    for position, node in enumerate(graph.values()):
        if not isinstance(node, core.P2PBarrierTask):
            continue
        spec = node.spec
        partitions = list(spec.output_partitions)
        count = getattr(spec, "npartitions", len(partitions))
        places = [[partition, spec.pick_worker(partition, range(count))] for partition in partitions]
        facts.append(
            {
                "task": position,
                "shuffle_id": spec.id,
                "count": count,
                "partitions": places,
                "spec": reply.attach(pickle.dumps(spec)),
            }
        )
    return facts


def materialize(body, frames):
    from dask._task_spec import convert_legacy_graph

    started = time.perf_counter()
    expression = load_expression(body, frames)
    for_all = load_annotations(body, frames)
    loaded = time.perf_counter()
    graph = expression.__dask_graph__()
    by_type = dict(expression.__dask_annotations__())
    del expression
    graph = cull(convert_legacy_graph(graph), load_keys(frames[body["keys"]]))
    materialized = time.perf_counter()

    reply = Reply()
    reply.body["annotations"] = annotation_columns(list(graph), for_all, by_type) if for_all or by_type else []
    reply.body["barriers"] = barrier_facts(graph, reply)
    buffers = []
    pickled = pickle_graph(graph, lambda buffer: buffers.append(buffer.raw()))
    first = reply.attach(pickled)
    reply.frames.extend(buffers)
    reply.body["graph"] = [first, 1 + len(buffers)]
    finished = time.perf_counter()
    reply.body["seconds"] = {
        "load": loaded - started,
        "materialize": materialized - loaded,
        "pickle": finished - materialized,
    }
    return reply


def annotate(body, frames):
    """Applies annotations that only Python can evaluate to the keys of a graph that needed no Python."""
    reply = Reply()
    keys = load_keys(frames[body["keys"]])
    reply.body["annotations"] = annotation_columns(keys, load_annotations(body, frames), {})
    return reply


def versions(body, frames):
    from distributed.versions import get_versions

    reply = Reply()
    reply.body["versions"] = get_versions(body.get("packages") or ())
    return reply


class SchedulerStandIn:
    """What the scheduler is for plugins that bring modules: facts, and what a helper can do itself."""

    def __init__(self, body):
        self.local_directory = body["directory"]
        for name, value in body["facts"].items():
            setattr(self, name, value)

    def __getattr__(self, name):
        raise AttributeError(
            "dask-rs: the scheduler is a native program; this process builds its graphs, and has no scheduler's %r" % name
        )

    async def upload_file(self, filename, data, load=True):
        from distributed.utils import import_file

        path = os.path.join(self.local_directory, os.path.basename(filename))
        with open(path, "wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
        if load:
            import_file(path)
        return {"status": "OK", "nbytes": len(data)}


def settle(result):
    """The outcome of a call that may be a coroutine."""
    import asyncio
    import inspect

    if not inspect.isawaitable(result):
        return result

    async def wait():
        return await result

    return asyncio.run(wait())


def start_plugin(body, frames):
    """Starts a plugin that brings modules. Its hooks are another process's affair."""
    from distributed.protocol import pickle

    plugin = pickle.loads(frames[body["plugin"]])
    if hasattr(plugin, "start"):
        settle(plugin.start(SchedulerStandIn(body)))
    return Reply()


def write_dump(body, frames):
    import msgpack
    from distributed import cluster_dump

    async def state():
        return msgpack.loads(frames[body["state"]], raw=False, use_list=True, strict_map_key=False)

    options = body["options"] or {}
    settle(cluster_dump.write_state(state, body["url"], body["format"] or "msgpack", **options))
    return Reply()


def load_keys(frame):
    import msgpack

    return msgpack.loads(frame, raw=False, use_list=False, strict_map_key=False)


OPERATIONS = {
    operation.__name__: operation
    for operation in (materialize, annotate, versions, start_plugin, write_dump)
}


def error_reply(error):
    """The exception as the client shall raise it. Called while it is being handled."""
    from distributed.core import error_message

    if not isinstance(error, Exception):
        error = RuntimeError("building the graph raised %r" % (error,))
    message = error_message(error)
    reply = Reply()
    reply.body["status"] = "error"
    reply.body["exception"] = reply.attach(message["exception"].data)
    if message["traceback"] is not None:
        reply.body["traceback"] = reply.attach(message["traceback"].data)
    reply.body["exception_text"] = message["exception_text"]
    reply.body["traceback_text"] = message["traceback_text"]
    return reply


def answer(frames):
    import msgpack

    try:
        body = msgpack.loads(frames[0], raw=False, use_list=False, strict_map_key=False)
        reply = OPERATIONS[body["op"]](body, frames)
        reply.body["status"] = "ok"
        return reply.finish()
    except BaseException as error:
        return error_reply(error).finish()


def prepare():
    """Imports what every request needs; the problem as text, if there is one."""
    try:
        import dask._expr  # noqa: F401
        import dask._task_spec  # noqa: F401
        import distributed
        import distributed.core  # noqa: F401
        import msgpack  # noqa: F401
    except Exception as error:
        return {"ready": False, "problem": "%s: %s" % (type(error).__name__, error)}
    make_layer_culling_linear()
    make_nodes_quick()
    return {"ready": True, "distributed": distributed.__version__}


def main():
    channel = Channel()
    hello = prepare()
    hello["python"] = sys.version.split()[0]
    hello["executable"] = sys.executable
    channel.send([json.dumps(hello).encode()])
    if not hello["ready"]:
        return
    requests = channel.requests()
    leftovers = Leftovers()
    while True:
        frames = requests.get()
        # Graphs are many objects without cycles among them: collections while they grow find nothing.
        gc.disable()
        try:
            reply = answer(frames)
            del frames
            channel.send(reply)
            del reply
        finally:
            gc.enable()
        leftovers.collect()


if __name__ == "dask_rs_graph_helper":
    main()
