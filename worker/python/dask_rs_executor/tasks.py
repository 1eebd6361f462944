"""Running tasks: in a pool's thread, or on the event loop when the task is a coroutine."""

import asyncio
import contextlib
import contextvars
import logging
import os
import sys
import threading
from time import thread_time, time

import dask
from dask.sizeof import sizeof
from dask.utils import typename
from distributed.core import error_message
from distributed.exceptions import Reschedule
from distributed.protocol import pickle, serialize
from distributed.threadpoolexecutor import ThreadPoolExecutor
from distributed.utils import thread_state
from distributed.worker import _worker_cvar, dumps_function

from .interrupt import NeedsWorker, TaskInterrupted, give_back_leases
from .store import small_copy
from .wire import Packed, Sealed

logger = logging.getLogger("distributed.worker")

_ABSENT = object()
# What is known of a task that was shorter than this is sent with that of the next ones, if they are like it.
POST_TASK_SECONDS_MAX = 0.001
# Longest description of a failed task in the log.
TASK_REPR_CHARACTERS_MAX = 1000
# One thread of a pool unpickles at a time, as in upstream's workers. While a package is being imported, another thread's
# pickle takes functions from those of its modules that are there already, and would run them before the rest of it is.
_unpickling = threading.Lock()


def start(worker, message):
    """Hands an ``execute`` message to the pool that its annotations name."""
    for key, packed in message["data"].items():
        worker.data.take(key, packed)
    message["running"] = worker.runs.new(message["key"], message["run_id"])
    name = (message["annotations"] or {}).get("executor", "default")
    # The pool's thread waits for the process.
    pool = worker.executors.get("default" if name == "processes" else name)
    if pool is None:
        error = ValueError(f"Invalid executor {name!r}; expected one of: {sorted([*worker.executors, 'processes'])}")
        _fail(worker, message, error, time())
        return
    worker.tell_transition(message["key"], "released", "waiting")
    worker.tell_transition(message["key"], "waiting", "ready")
    found = worker.holds.take(message["key"], message["run_id"])
    # Taken here, because the values may be dropped before a thread is free.
    found.update(here(worker, message["dependencies"]))
    try:
        if isinstance(pool, ThreadPoolExecutor):
            # What submit does, without the future that nobody would look at.
            pool._work_queue.put(Run(worker, message, found))
            pool._adjust_thread_count()
        else:
            pool.submit(_run_in_thread, worker, message, found)
    except Exception as error:
        _fail(worker, message, error, time())


class Run:
    """An execution in a pool's queue."""

    __slots__ = ("arguments",)

    def __init__(self, *arguments):
        self.arguments = arguments

    def run(self):
        """Called by the pool's thread. Leaves nothing that would keep the data alive."""
        arguments, self.arguments = self.arguments, None
        _run_in_thread(*arguments)


def _run_in_thread(worker, message, found):
    if worker.apart.is_for(message):
        try:
            _run_apart(worker, message, found)
            return
        except NeedsWorker:
            pass
    try:
        token = _worker_cvar.set(worker)
        try:
            with _unpickling:
                spec = message["spec"].load()
                data = {key: _value(found[key]) for key in message["dependencies"]}
        finally:
            _worker_cvar.reset(token)
    except Exception as error:
        _fail(worker, message, error, time())
        return
    if getattr(spec, "is_coro", False):
        worker.loop.add_callback(_run_on_loop, worker, message, spec, data)
        return
    running = message["running"]
    started, cpu_started = _begin(worker, message), thread_time()
    with _span(message):
        token = _worker_cvar.set(worker)
        try:
            running.begin()
            try:
                value = spec(data)
            finally:
                running.end()
        except (SystemExit, KeyboardInterrupt) as error:
            worker.exit(error)
        except TaskInterrupted as error:
            _interrupted(worker, message, error.__traceback__.tb_next, started, spec)
        except BaseException as error:
            _fail(worker, message, error, started, spec)
        else:
            _finish(worker, message, value, started, thread_time() - cpu_started)
        finally:
            _worker_cvar.reset(token)
            _end(worker, running)


def _begin(worker, message):
    """Notes what this thread runs from now on; returns the time."""
    key, ident = message["key"], threading.get_ident()
    worker.tell_transition(key, "ready", "executing")
    started = time()
    with worker.active_threads_lock:
        worker.active_threads[ident] = key
    worker.sampler.wake()
    thread_state.start_time, thread_state.key = started, key
    thread_state.execution_state = worker.execution_state
    return started


def _end(worker, running):
    """It does not run that any more."""
    del thread_state.start_time, thread_state.key, thread_state.execution_state
    with worker.active_threads_lock:
        del worker.active_threads[threading.get_ident()]
    if running.given_up:
        # Another thread has taken this one's place in the pool.
        thread_state.proceed = False


def _run_apart(worker, message, found):
    """Has a task run in a process of its own. Raises NeedsWorker if it is to be run here."""
    started = _begin(worker, message)
    try:
        report = worker.apart.run(message, found)
        if report["op"] == "finished":
            _finish_apart(worker, message, report, started)
        else:
            _fail_apart(worker, message, report, started)
    except NeedsWorker:
        worker.tell_transition(message["key"], "executing", "ready")
        raise
    except TaskInterrupted as error:
        _interrupted(worker, message, users_part(error.__traceback__), started)
    except Exception as error:
        _fail(worker, message, error, started)
    finally:
        _end(worker, message["running"])


async def _run_on_loop(worker, message, spec, data):
    worker.tell_transition(message["key"], "ready", "executing")
    started = time()
    running, task = message["running"], asyncio.current_task()
    token = _worker_cvar.set(worker)
    try:
        with _span(message):
            running.begin(lambda: worker.loop.add_callback(task.cancel))
            try:
                value = await spec(data)
            finally:
                running.end()
    except (SystemExit, KeyboardInterrupt) as error:
        worker.exit(error)
    except (TaskInterrupted, asyncio.CancelledError) as error:
        if running.reason is None:
            _fail(worker, message, error, started, spec)
        else:
            _interrupted(worker, message, error.__traceback__.tb_next, started, spec)
    except BaseException as error:
        _fail(worker, message, error, started, spec)
    else:
        _finish(worker, message, value, started, 0.0)
    finally:
        _worker_cvar.reset(token)


def _span(message):
    annotations = message["annotations"] or {}
    if "span" in annotations:
        return dask.annotate(span=annotations["span"])
    return contextlib.nullcontext()


def here(worker, keys):
    """Those of these keys that are in this process: a proxy for an actor, else the value as it is."""
    found = {}
    for key in keys:
        value = worker.actor_proxy(key) if key in worker.state.actors else worker.data.here(key, _ABSENT)
        if value is not _ABSENT:
            found[key] = value
    return found


def _value(dependency):
    # Not isinstance, which would ask a weak reference's dead object for its class.
    return dependency.load() if type(dependency) is Packed else dependency


def _finish(worker, message, value, started, cpu):
    stopped = time()
    key = message["key"]
    try:
        nbytes = int(sizeof(value))
        if message["actor"]:
            worker.state.actors[key] = value
            # Without the context of the task: a proxy made there would bind a client, and that would hold the key.
            copy = Sealed(*serialize(contextvars.Context().run(worker.actor_proxy, key)))
        else:
            worker.data[key] = value
            copy = small_copy(value, nbytes)
        described, name = type_of(value)
    except Exception as error:
        _fail(worker, message, error, started)
        return
    worker.tell_transition(key, "executing", "memory", nbytes=nbytes, type=type(value))
    facts = {"nbytes": nbytes, "type": described, "typename": name, "cpu": cpu, "value": copy}
    _report(worker, message, facts, started, stopped)


def _finish_apart(worker, message, report, started):
    stopped = time()
    copy = report["copy"] and Sealed(report["copy"].header, report["copy"].frames)
    worker.data[message["key"]] = report["value"] or Packed(copy.header, copy.frames)
    worker.tell_transition(message["key"], "executing", "memory", nbytes=report["nbytes"], type=report["typename"])
    facts = {name: report[name] for name in ("nbytes", "type", "typename", "cpu")}
    _report(worker, message, {**facts, "value": copy}, started, stopped)


def _report(worker, message, facts, started, stopped):
    report = {
        "op": "finished",
        "key": message["key"],
        "run_id": message["run_id"],
        "thread": threading.get_ident(),
        "start": started,
        "stop": stopped,
        "span_id": message["span_id"],
        "actor": message["actor"],
        **facts,
    }
    if stopped - started < POST_TASK_SECONDS_MAX and worker.runs.more_of(message["running"].kind):
        worker.link.post(report, stopped)
    else:
        worker.link.send(report)


_BUILTIN_TYPES = {}


def type_of(value):
    """The pickled class of a value, and its name."""
    kind = type(value)
    known = _BUILTIN_TYPES.get(kind)
    if known is None:
        known = type_pickle(kind), typename(kind)
        if kind.__module__ == "builtins":
            _BUILTIN_TYPES[kind] = known
    return known


def type_pickle(kind):
    """The pickled class, or its pickled name if it cannot be pickled."""
    try:
        return dumps_function(kind)
    except Exception:
        return pickle.dumps(kind.__name__)


def _interrupted(worker, message, where, started, spec=None):
    """Reports that a task was stopped: as an error if it was over its limit; the scheduler knows of any other reason."""
    running = message["running"]
    # It was not ended if it never began, or if the interruption came while it was being ended.
    running.end()
    give_back_leases(worker.loop, where)
    if running.limit is None:
        _reschedule(worker, message)
        return
    text = f"task {message['key']!r} was interrupted on worker {worker.address}: {running.reason}"
    try:
        raise TimeoutError(text).with_traceback(where) from None
    except TimeoutError as overdue:
        overdue.__context__ = None
        _fail(worker, message, overdue, started, spec)


def _reschedule(worker, message):
    worker.tell_transition(message["key"], "executing", "released")
    worker.link.send({"op": "rescheduled", "key": message["key"], "run_id": message["run_id"]})


def _fail(worker, message, error, started, spec=None):
    """Reports an error. Called inside the handler of that error, or for one that was never raised."""
    message["running"].end()
    if isinstance(error, Reschedule):
        _reschedule(worker, message)
    else:
        _report_error(worker, message, described(error), started, task_repr(spec))


def _fail_apart(worker, message, report, started):
    if report["op"] == "rescheduled":
        _reschedule(worker, message)
        return
    for name in ("exception", "traceback"):
        if report[name] is not None:
            report[name] = Sealed(report[name].header, report[name].frames)
    _report_error(worker, message, report, started, report.pop("task"))


def _report_error(worker, message, report, started, task):
    stopped = time()
    logger.error(
        "Compute Failed\nKey:       %s\nState:     executing\nTask:  %s\nException: %r\nTraceback: %r\n",
        message["key"],
        task,
        report["exception_text"],
        report["traceback_text"],
    )
    report.update(
        op="erred",
        key=message["key"],
        run_id=message["run_id"],
        thread=threading.get_ident(),
        start=started,
        stop=stopped,
        span_id=message["span_id"],
    )
    facts = {name: report[name] for name in ("exception", "traceback", "exception_text", "traceback_text")}
    worker.tell_transition(message["key"], "executing", "error", **facts)
    worker.link.send(report)


def task_repr(spec):
    """A task as the log shows it."""
    try:
        return repr(spec)[:TASK_REPR_CHARACTERS_MAX]
    except Exception:
        return "<no repr>"


# Frames of these say nothing about the user's code.
_RUNNERS = {os.path.join(os.path.dirname(__file__), name) for name in ("tasks.py", "apart.py", "alone.py")}


def users_part(traceback):
    """Where an error of user code was, without the frames of what ran it."""
    while traceback is not None and traceback.tb_frame.f_code.co_filename in _RUNNERS:
        traceback = traceback.tb_next
    return traceback


def described(error):
    """What clients are told of an error."""
    error.__traceback__ = users_part(error.__traceback__)
    if sys.exc_info()[1] is error:
        return error_message(error)
    try:
        raise error
    except BaseException as raised:
        raised.__traceback__ = None
        return error_message(raised)


def exit_status(error):
    """The status a process would end with that let this SystemExit or KeyboardInterrupt pass."""
    code = getattr(error, "code", 1)
    if code is None:
        return os.EX_OK
    return code & 0xFF if isinstance(code, int) else 1
