"""The program of a task's process (`apart`): takes tasks one at a time, and ends when the worker's process is gone."""

import asyncio
import contextlib
import logging
import os
import queue
import secrets
import signal
import sys
import threading
from time import thread_time

import dask
import distributed.worker
from dask.sizeof import sizeof
from distributed import profile
from distributed.exceptions import Reschedule
from distributed.protocol import pickle, serialize

from . import lending, tasks
from .interrupt import TaskInterrupted, raise_in, take_back
from .profiling import Sampler
from .regions import regions
from .store import small_copy
from .wire import Framed, Sealed, encode

logger = logging.getLogger("distributed.worker")

_SECRET_BYTES = 32
_RECORD_FACTS = (
    *("name", "levelno", "levelname", "pathname", "filename", "module", "lineno", "funcName", "exc_text", "stack_info"),
    *("created", "msecs", "relativeCreated", "thread", "threadName", "process", "processName"),
)
_STOP = os.path.join("dask_rs_executor", "alone.py")


class AsksForWorker(BaseException):
    """Raised where a task asks for its worker, or has a result that cannot leave a process.

    No `Exception`, so that handlers of the task's own errors let it pass.
    """


class _NoWorker:
    """In the place of the variable in which `distributed` looks for the worker."""

    def __init__(self):
        self.was_asked = False

    def get(self, *_):
        self.was_asked = True
        raise AsksForWorker


class LogHandler(logging.Handler):
    """Passes records on to the worker's process, which has the handlers that the user set up."""

    def __init__(self, send):
        super().__init__()
        self._passed_on = send

    def emit(self, record):
        """Sends what of a record any process can read."""
        try:
            facts = {name: getattr(record, name) for name in _RECORD_FACTS}
            if record.exc_info:
                facts["exc_text"] = self.formatter.formatException(record.exc_info)
            self._passed_on({"op": "log", "record": {**facts, "msg": record.getMessage(), "args": None}})
        except Exception:
            self.handleError(record)


class Program:
    """What the thread that reads and the one that runs tasks share."""

    def __init__(self, link):
        self._link = link
        self._sending = threading.Lock()
        self._tasks = queue.SimpleQueue()
        self._no_worker = distributed.worker._worker_cvar = _NoWorker()
        self._main = threading.get_ident()
        # The worker's process, which must be able to read this one's memory for values to be left in place.
        self._parent, self._secret = None, secrets.token_bytes(_SECRET_BYTES)
        self._in_place = False
        # Large parts of the last result, until they were taken over.
        self._kept = []
        self._lock = threading.Lock()
        self.active_threads, self.active_threads_lock = {}, threading.Lock()
        self._sampler = Sampler(self, stop=_STOP, turned=self._tell_sampled)
        self._sampler.start()
        # Whether a task of the user's runs now, and whether it was to end before that.
        self._is_running, self._is_interrupted = False, False

    def read(self):
        """Takes messages until nobody sends any."""
        try:
            while True:
                for message in self._link.receive():
                    self._take(message)
        except (EOFError, OSError):
            os._exit(0)
        except BaseException:
            # Without this thread the task would be waited for for ever.
            logger.critical("The thread that reads from the worker's process failed", exc_info=True)
            os._exit(1)

    def _take(self, message):
        op = message["op"]
        if op == "run":
            self._tasks.put(message)
        elif op == "taken":
            self._kept.clear()
        elif op == "interrupt":
            with self._lock:
                self._is_interrupted = True
                if self._is_running:
                    raise_in(self._main)
        elif op == "stack":
            frame = sys._current_frames()[self._main]
            self._send({"op": "stack", "stack": tuple(profile.call_stack(frame))})
        elif op == "begin":
            regions.limit(message["memory_limit"])
            self._set_logging_up(message["log_levels"])
            self._parent = message["place"][0]
            can_read = lending.can_read(message["place"], message["secret"])
            place = lending.probe(self._secret)
            self._send({"op": "begun", "can_read": can_read, "place": place, "secret": self._secret})
        elif op == "agreed":
            self._in_place = message["in_place"]

    def _send(self, message):
        with self._sending:
            self._link.write(encode([message]))

    def _set_logging_up(self, levels):
        for name, level in levels.items():
            # The worker's process has the handlers.
            logger = logging.getLogger(name or None)
            logger.setLevel(level)
            logger.handlers.clear()
            logger.propagate = True
        handler = LogHandler(self._send)
        handler.setFormatter(logging.Formatter())
        logging.root.addHandler(handler)

    def _tell_sampled(self, trees):
        self._send({"op": "sampled", "trees": list(trees.items())})

    def waits(self, ident):
        """Whether a thread waits for a task elsewhere; for the sampler."""
        return False

    def run(self):
        """Runs tasks for ever. Keeps nothing of one when it waits for the next."""
        try:
            while True:
                self._send(self._run(self._tasks.get()))
        except OSError:
            # Nobody is there to hear of it.
            os._exit(0)

    def _run(self, message):
        self._no_worker.was_asked = False
        spec = report = None
        try:
            if sys.path != list(message["path"]):
                sys.path[:] = message["path"]
            spec = message["spec"].load()
            inputs = {key: self._copied(item).load() for key, item in message["inputs"]}
            cpu_started = thread_time()
            with self._sampled(message["key"]), _annotated(message["span"]), self._interruptible():
                value = _outcome(spec, inputs)
            report = self._finished(value, thread_time() - cpu_started)
        except (SystemExit, KeyboardInterrupt) as error:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(tasks.exit_status(error))
        except AsksForWorker:
            self._no_worker.was_asked = True
        except TaskInterrupted as error:
            report = {"op": "interrupted", "traceback": pickle.dumps(tasks.users_part(error.__traceback__))}
        except Reschedule:
            report = {"op": "rescheduled"}
        except BaseException as error:
            report = {"op": "erred", "task": tasks.task_repr(spec), **tasks.described(error)}
        # Its handlers may have swallowed what was raised.
        return {"op": "needs_worker"} if self._no_worker.was_asked else report

    @contextlib.contextmanager
    def _interruptible(self):
        with self._lock:
            if self._is_interrupted:
                raise TaskInterrupted
            self._is_running = True
        try:
            yield
        finally:
            with self._lock:
                self._is_running = False
                if self._is_interrupted:
                    take_back(self._main)

    @contextlib.contextmanager
    def _sampled(self, key):
        with self.active_threads_lock:
            self.active_threads[self._main] = key
        self._sampler.wake()
        try:
            yield
        finally:
            with self.active_threads_lock:
                del self.active_threads[self._main]
            # Until the next task nobody hears what is sent.
            self._sampler.turn()

    def _copied(self, item):
        return lending.copied(self._parent, item["packed"], item["places"])

    def _finished(self, value, cpu):
        nbytes = int(sizeof(value))
        copy = small_copy(value, nbytes)
        described, name = tasks.type_of(value)
        # A small one needs no other form than its copy.
        sent = self._sent(Sealed(*_serialized(value))) if copy is None else None
        facts = {"nbytes": nbytes, "type": described, "typename": name, "cpu": cpu}
        return {"op": "finished", "copy": copy, "value": sent, **facts}

    def _sent(self, sealed):
        return lending.in_place(sealed, self._kept) if self._in_place else {"packed": sealed, "places": ()}


def _annotated(span):
    return dask.annotate(span=span) if span else contextlib.nullcontext()


def _serialized(value):
    try:
        return serialize(value, on_error="raise")
    except Exception:
        # Open files, locks and such: tasks of the same process can use them.
        raise AsksForWorker from None


def _outcome(spec, inputs):
    value = spec(inputs)
    return asyncio.run(_awaited(value)) if getattr(spec, "is_coro", False) else value


async def _awaited(value):
    return await value


def main(descriptor):
    """Serves the worker's process at the other end of the socket."""
    # The worker decides when to stop; a Ctrl-C of the terminal reaches this process, too.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    lending.allow_readers()
    program = Program(Framed(descriptor))
    threading.Thread(target=program.read, name="Dask-Task-Link", daemon=True).start()
    program.run()
