"""Tasks in processes of their own, as many as run at once: for Python code that keeps the interpreter from other threads,
or that may end it.

Values stay in the worker's Python process, serialised as they came: a task's process reads the large parts of its inputs
from that one's memory, and its result is read from there. A task that asks for its worker, and one with an input or a
result that cannot leave a process, is run in the worker's process after all, and so are those like it from then on.
"""

import contextlib
import logging
import os
import pickle
import queue
import secrets
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures.process import BrokenProcessPool

from . import lending
from .calls import packed
from .interrupt import NeedsWorker, TaskInterrupted
from .wire import Framed, Sealed, encode

# How long a task that is to end may clean up.
INTERRUPT_SECONDS_MAX = 2
# How long a process that closes may take.
END_SECONDS_MAX = 5
# How long to wait for the call stack of a task.
STACK_SECONDS_MAX = 1
# Variables that are about the worker's own Python process.
_OWN_VARIABLES = ("DASK_PARENT_FD", "DASK_RS_WORKER_PID")
_BOOTSTRAP = """import os, sys
sys.path.insert(0, sys.argv.pop(1))
import dask_rs_executor.alone as program
sys.path[0] = os.getcwd()
program.main(int(sys.argv.pop(1)))"""
_PROBE_BYTES = 32


class TaskProcesses:
    """The processes, and which tasks are not for them."""

    def __init__(self, worker, by_default):
        self._worker = worker
        self._by_default = by_default
        self._lock = threading.Lock()
        self._idle = []
        # By the thread that waits for the task.
        self._busy = {}
        # Those that started before this were told what is not so any more.
        self._generation = 0
        self._kinds_here = set()

    def is_for(self, message):
        """Whether a task is to run apart."""
        if message["actor"] or message["running"].kind in self._kinds_here:
            return False
        pool = (message["annotations"] or {}).get("executor", "default")
        return pool == "processes" or (self._by_default and pool == "default")

    def run(self, message, found):
        """Runs a task in the place of this thread, and returns what its process reports.

        Raises BrokenProcessPool if the process ends, TaskInterrupted if it was made to, and NeedsWorker.
        """
        running, process = message["running"], self._take()
        try:
            running.begin(process.interrupt)
            try:
                report = process.run(message, found)
            finally:
                running.pause()
            if report["op"] == "needs_worker":
                raise NeedsWorker
        except NeedsWorker:
            self._kinds_here.add(running.kind)
            raise
        except Exception as error:
            status = process.end()
            # Whatever it was in the middle of saying.
            if running.reason is not None:
                raise TaskInterrupted from None
            if not isinstance(error, (EOFError, OSError)):
                raise
            raise BrokenProcessPool(
                f"the process in which task {message['key']!r} ran on worker {self._worker.address} {_ended(status)}"
            ) from None
        finally:
            self._give_back(process)
        running.end()
        if report["op"] == "interrupted":
            raise TaskInterrupted().with_traceback(pickle.loads(report["traceback"]))
        return report

    def start_anew(self):
        """From here on tasks run in new processes: modules that those of before have imported may have been replaced."""
        with self._lock:
            self._generation += 1
            old, self._idle = self._idle, []
        for process in old:
            process.end()
        if old:
            self._tell()

    def has(self, ident):
        """Whether a thread waits for a task."""
        return ident in self._busy

    def stack(self, ident):
        """The call stack of the task that a thread waits for; None if it waits for none, or it has just ended."""
        process = self._busy.get(ident)
        return process and process.stack()

    def _take(self):
        ident = threading.get_ident()
        with self._lock:
            while self._idle:
                process = self._idle.pop()
                # What has killed it while it had no task is nobody's fault.
                if process.is_alive():
                    self._busy[ident] = process
                    return process
            generation = self._generation
        process = TaskProcess(self._worker, generation)
        with self._lock:
            self._busy[ident] = process
        self._tell()
        return process

    def _give_back(self, process):
        with self._lock:
            del self._busy[threading.get_ident()]
            is_good = process.is_usable and process.generation == self._generation
            # More than that were there only while tasks had left the pool.
            if is_good and len(self._idle) < self._worker.state.nthreads:
                self._idle.append(process)
                return
        process.end()
        self._tell()

    def _tell(self):
        # The worker counts their memory as its own.
        with self._lock:
            pids = [process.pid for process in (*self._idle, *self._busy.values())]
            self._worker.link.send({"op": "task_processes", "pids": pids})


def _ended(status):
    if status < 0:
        with contextlib.suppress(ValueError):
            return f"was ended by {signal.Signals(-status).name}"
        return f"was ended by signal {-status}"
    return f"ended with status {status}"


class TaskProcess:
    """One process. A thread has it for as long as its task runs."""

    def __init__(self, worker, generation):
        self._worker = worker
        self.generation = generation
        # Whether it can take another task.
        self.is_usable = False
        self._is_interrupted = False
        self._sending = threading.Lock()
        self._stacks = queue.SimpleQueue()
        ours, theirs = socket.socketpair()
        with theirs:
            package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
            command = [sys.executable, "-u", "-c", _BOOTSTRAP, package, str(theirs.fileno())]
            env = {name: value for name, value in os.environ.items() if name not in _OWN_VARIABLES}
            try:
                self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()], env=env)
            except OSError:
                ours.close()
                raise
        self.pid = self._process.pid
        self._link = Framed(ours.detach())
        self._is_introduced = False
        # Whether large parts of values are read from the other's memory.
        self._in_place = False

    def is_alive(self):
        """Whether it has not ended."""
        return self._process.poll() is None

    def run(self, message, found):
        """Sends a task with its inputs, waits, and takes its result over."""
        if not self._is_introduced:
            self._introduce()
        kept = []
        inputs = [(key, self._sent(found[key], kept)) for key in message["dependencies"]]
        spec = _sealed(message["spec"])
        self.is_usable = False
        span = (message["annotations"] or {}).get("span")
        self._send({"op": "run", "key": message["key"], "spec": spec, "inputs": inputs, "path": sys.path, "span": span})
        inputs.clear()
        report = self._report()
        kept.clear()
        if report.get("value") is not None:
            report["value"] = lending.copied(self.pid, report["value"]["packed"], report["value"]["places"])
            self._send({"op": "taken"})
        self.is_usable = not self._is_interrupted
        return report

    def _introduce(self):
        lending.allow_readers()
        secret = secrets.token_bytes(_PROBE_BYTES)
        limit = self._worker.memory_manager.memory_limit
        options = {"memory_limit": limit, "log_levels": _log_levels()}
        self._send({"op": "begin", "secret": secret, "place": lending.probe(secret), **options})
        reply = self._report()
        self._in_place = reply["can_read"] and lending.can_read(reply["place"], reply["secret"])
        self._send({"op": "agreed", "in_place": self._in_place})
        self._is_introduced = True

    def _sent(self, value, kept):
        sealed = _sealed(value)
        return lending.in_place(sealed, kept) if self._in_place else {"packed": sealed, "places": ()}

    def _send(self, message):
        with self._sending:
            self._link.write(encode([message]))

    def _report(self):
        while True:
            (message,) = self._link.receive()
            if message["op"] == "stack":
                self._stacks.put(message["stack"])
            elif message["op"] == "sampled":
                self._worker.sampler.add(message["trees"])
            elif message["op"] == "log":
                _log(logging.makeLogRecord(message["record"]))
            else:
                return dict(message)

    def stack(self):
        """The call stack of its task, None if it does not tell in time."""
        with contextlib.suppress(OSError, queue.Empty):
            self._send({"op": "stack"})
            return self._stacks.get(timeout=STACK_SECONDS_MAX)
        return None

    def interrupt(self):
        """Raises an exception in the task, and ends the process if that does not end the task in time. Does not wait."""
        self._is_interrupted = True
        threading.Thread(target=self._interrupt, name="Dask-Interrupt", daemon=True).start()

    def _interrupt(self):
        # A task that is still being sent does not run.
        if self._sending.acquire(timeout=INTERRUPT_SECONDS_MAX):
            try:
                with contextlib.suppress(OSError):
                    self._link.write(encode([{"op": "interrupt"}]))
            finally:
                self._sending.release()
        # A process with a task that was interrupted takes no other.
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(INTERRUPT_SECONDS_MAX)
            return
        self._process.kill()

    def end(self):
        """Ends it, and returns how it ended: a status, or a signal's number below zero."""
        self.is_usable = False
        with contextlib.suppress(OSError):
            # It ends when nobody is there.
            self._link.sock.shutdown(socket.SHUT_RDWR)
        try:
            return self._process.wait(END_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()


def _log_levels():
    loggers = {name: it for name, it in logging.root.manager.loggerDict.items() if isinstance(it, logging.Logger)}
    return {"": logging.root.level, **{name: it.level for name, it in loggers.items() if it.level}}


def _log(record):
    known = logging.getLogger(record.name)
    if known.isEnabledFor(record.levelno):
        known.handle(record)


def _sealed(value):
    form = packed(value)
    if form.header.get("serializer") == "error":
        # It can be used where it is.
        raise NeedsWorker
    return form if type(form) is Sealed else Sealed(form.header, form.frames)
