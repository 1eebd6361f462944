"""Remote calls that only Python can answer: ``run``, actors, plugins, uploaded files, call stacks, plugin handlers."""

import ctypes
import types
from inspect import isawaitable

import distributed.worker as upstream
from dask.sizeof import sizeof
from distributed.core import error_message
from distributed.protocol import serialize
from distributed.versions import get_versions

from . import tasks
from .store import small_copy
from .wire import Packed, Sealed, loaded

# Only glibc has it.
_malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)

_RESERVED = ("op", "reply", "close", "serializers")


async def answer(worker, message):
    """Answers one ``request`` of a peer and sends the reply back under the same id."""
    try:
        reply = await _dispatch(worker, message)
    except (SystemExit, KeyboardInterrupt) as error:
        worker.exit(error)
    except Exception as error:
        reply = error_message(error, status="uncaught-error")
    worker.link.send({"op": "reply", "id": message["id"], "reply": reply})


async def _dispatch(worker, message):
    arguments = loaded(message["request"])
    op = arguments["op"]
    arguments = {name: value for name, value in arguments.items() if name not in _RESERVED}
    if op in ("run", "run_coroutine"):
        comm = types.SimpleNamespace(peer_address=message["peer"])
        token = upstream._worker_cvar.set(worker)
        try:
            return await upstream.run(worker, comm, **arguments)
        finally:
            upstream._worker_cvar.reset(token)
    handlers = {
        "actor_execute": worker.actor_execute,
        "actor_attribute": worker.actor_attribute,
        "plugin-add": worker.plugin_add,
        "plugin-remove": worker.plugin_remove,
        "upload_file": worker.upload_file,
        "call_stack": worker.get_call_stack,
        "profile": worker.sampler.tree,
        "profile_metadata": worker.sampler.metadata,
        "versions": get_versions,
    }
    handler = handlers.get(op) or worker.handlers[op]
    result = handler(**arguments)
    return await result if isawaitable(result) else result


def stream(worker, message):
    """Passes a message of the scheduler's stream to the plugin that registered for its op."""
    arguments = dict(loaded(message["message"]))
    handler = worker.stream_handlers.get(arguments.pop("op"))
    if handler is not None:
        result = handler(**arguments)
        if isawaitable(result):
            worker._ongoing_background_tasks.call_soon(_awaited, result)


async def _awaited(result):
    return await result


def fetch(worker, message, values):
    """Serialises values for a peer. Keys that are not here are left out."""
    data = {}
    while values:
        # Nothing here keeps a value longer than it must.
        key, value = values.popitem()
        data[key] = packed(value)
    worker.link.send({"op": "reply", "id": message["id"], "reply": data})


def give_memory_back(worker, message):
    """Has the C library return what was freed to the system, and says so."""
    if _malloc_trim is not None:
        _malloc_trim(0)
    worker.link.send({"op": "reply", "id": message["id"], "reply": True})


def packed(value):
    if isinstance(value, Packed):
        relayed = value.relay()
        if relayed is not None:
            return relayed
        value = value.load()
    return Sealed(*serialize(value, on_error="message"))


def measure(worker, message):
    """Takes scattered values in and tells their sizes. Values that do not load stay packed."""
    sizes = {}
    for key, packed in message["data"].items():
        worker.data[key] = packed
        try:
            value = worker.data[key]
            nbytes = int(sizeof(value))
        except Exception:
            tasks.logger.exception("Could not deserialize the value of key %r", key)
            nbytes = sum(memoryview(frame).nbytes for frame in packed.frames)
            sizes[key] = {"nbytes": nbytes, "value": None}
            continue
        sizes[key] = {"nbytes": nbytes, "value": small_copy(value, nbytes)}
    worker.link.send({"op": "reply", "id": message["id"], "reply": sizes})


