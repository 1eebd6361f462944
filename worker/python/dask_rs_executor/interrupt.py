"""Stopping what runs: a task over its timeout, or one that nobody wants any more.

In a thread an exception is raised wherever the task's Python code is (`PyThreadState_SetAsyncExc`); a coroutine is
cancelled. A task that waits inside a call of C or the system notices when that returns.
"""

import ctypes
import threading
from concurrent.futures import CancelledError

# Not the one of `ctypes.pythonapi`: user code may give that other argument types.
_set_async_exc = ctypes.PyDLL(None).PyThreadState_SetAsyncExc
_set_async_exc.argtypes = (ctypes.c_ulong, ctypes.py_object)


class TaskInterrupted(BaseException):
    """Raised inside a task that is to end. No `Exception`, so that handlers of the task's own errors let it pass."""

    def __reduce_ex__(self, protocol):
        """Whoever gets it as the context of a user's exception does not have this module."""
        return CancelledError, self.args


class Running:
    """One execution, from the moment it is taken in until its outcome is certain."""

    __slots__ = ("_runs", "identity", "_thread", "_cancel", "reason", "limit", "given_up")

    def __init__(self, runs, identity):
        self._runs, self.identity = runs, identity
        self._thread = self._cancel = None
        # Why it was interrupted, and the limit in seconds if it had one; None as long as it was not.
        self.reason = self.limit = None
        self.given_up = False

    def begin(self, cancel=None):
        """User code starts now, in this thread; a coroutine passes what cancels it."""
        with self._runs.lock:
            if self.reason is not None:
                raise TaskInterrupted
            self._cancel = cancel
            if cancel is None:
                self._thread = threading.get_ident()

    def interrupt(self, reason, limit):
        """Called with the lock held."""
        if self.reason is not None:
            return
        self.reason, self.limit = reason, limit
        if self._cancel is not None:
            self._cancel()
        elif self._thread is not None:
            _set_async_exc(self._thread, TaskInterrupted)

    def end(self):
        """From here on the thread is not the task's: what was to be raised in it and was not, is taken back."""
        with self._runs.lock:
            if self._runs.running.pop(self.identity, None) is None:
                return
            if self.reason is not None and self._thread is not None:
                _set_async_exc(self._thread, ctypes.py_object())
            self._thread = self._cancel = None

    def give_up(self, pool):
        """Called with the lock held: nobody waits any more, and the thread does not count as the pool's."""
        self.given_up = True
        for thread in list(pool._threads):
            if thread.ident == self._thread:
                pool._threads.discard(thread)
        pool._adjust_thread_count()


class Runs:
    """All executions, by key and run."""

    def __init__(self):
        self.lock = threading.Lock()
        self.running = {}

    def new(self, key, run_id):
        """An execution that was taken in."""
        running = Running(self, (key, run_id))
        with self.lock:
            self.running[running.identity] = running
        return running

    def interrupt(self, key, run_id, limit):
        """Ends an execution that is over its limit in seconds, or not wanted any more (None)."""
        with self.lock:
            running = self.running.get((key, run_id))
            if running is not None:
                running.interrupt(_reason(limit), limit)

    def give_up(self, key, run_id, pool):
        """Stops waiting for an execution that cannot be interrupted."""
        with self.lock:
            running = self.running.get((key, run_id))
            if running is not None:
                running.give_up(pool)


def _reason(limit):
    if limit is None:
        return "nobody wants it any more"
    return f"it ran longer than its timeout of {limit:g} s"
