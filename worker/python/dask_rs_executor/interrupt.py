"""Stopping what runs: a task over its timeout, or one that nobody wants any more.

In a thread an exception is raised wherever the task's Python code is (`PyThreadState_SetAsyncExc`); a coroutine is
cancelled. A task that waits inside a call of C or the system notices when that returns; what it waits for on the event loop, such as
a lock or a future, is cancelled.
"""

import contextlib
import ctypes
import functools
import mmap
import struct
import sys
import threading
import traceback
from concurrent.futures import CancelledError

from distributed import Semaphore
from distributed.utils import sync

from .hello import RUNS_BYTES

# Not the one of `ctypes.pythonapi`: user code may give that other argument types.
_set_async_exc = ctypes.PyDLL(None).PyThreadState_SetAsyncExc
_set_async_exc.argtypes = (ctypes.c_ulong, ctypes.py_object)


_RUN = struct.Struct("=q")


class TaskInterrupted(BaseException):
    """Raised inside a task that is to end. No `Exception`, so that handlers of the task's own errors let it pass."""

    def __reduce_ex__(self, protocol):
        """Whoever gets it as the context of a user's exception does not have this module."""
        return CancelledError, self.args


class NeedsWorker(Exception):
    """A task cannot run in a process of its own: it asks for its worker, or has values that cannot be sent."""


def raise_in(ident):
    """Ends what a thread runs."""
    _set_async_exc(ident, TaskInterrupted)


def waiting(ident):
    """What cancels that which a thread waits for in `sync`, if it does. It looks for exceptions only every ten seconds there;
    and what nobody waits for any more would go on, and hold the lock that it gets in the end."""
    frame = sys._current_frames().get(ident)
    while frame is not None and frame.f_code is not sync.__code__:
        frame = frame.f_back
    # None of these is there before it waits.
    cancel = None if frame is None else frame.f_locals.get("cancel")
    return cancel and functools.partial(frame.f_locals["loop"].add_callback, _if_begun, cancel)


def _if_begun(cancel):
    with contextlib.suppress(NameError):
        cancel()


def give_back_leases(loop, where):
    """Gives back the lease that a task was granted in the moment in which it was interrupted: it does not know of it, and so its
    `with` does not end what never began. `where` is the traceback of the interruption."""
    asked = None
    for frame, _ in traceback.walk_tb(where):
        if frame.f_code is Semaphore.acquire.__code__:
            asked = frame.f_locals["self"]
        elif frame.f_code is sync.__code__ and asked is not None and (answer := frame.f_locals.get("future")) is not None:
            loop.add_callback(answer.add_done_callback, functools.partial(_give_back, loop, asked))
            return


def _give_back(loop, semaphore, answer):
    if not answer.cancelled() and answer.exception() is None and answer.result() and semaphore._leases:
        loop.add_callback(semaphore._release, semaphore._leases.popleft())


def take_back(ident):
    """What was to be raised in a thread and was not yet, is not."""
    _set_async_exc(ident, ctypes.py_object())


class Running:
    """One execution, from the moment it is taken in until its outcome is certain."""

    __slots__ = ("_runs", "identity", "kind", "_place", "_thread", "_cancel", "reason", "limit", "given_up")

    def __init__(self, runs, identity):
        self._runs, self.identity = runs, identity
        self.kind = _kind(identity[0])
        # Where it is noted that it runs; None before.
        self._place = None
        self._thread = self._cancel = None
        # Why it was interrupted, and the limit in seconds if it had one; None as long as it was not.
        self.reason = self.limit = None
        self.given_up = False

    def begin(self, cancel=None):
        """User code starts now, in this thread; a coroutine passes what cancels it."""
        with self._runs.lock:
            if self.reason is not None:
                raise TaskInterrupted
            if self._place is None:
                self._place = self._runs.note_begin(self)
            self._cancel = cancel
            self._thread = threading.get_ident() if cancel is None else None

    def pause(self):
        """User code does not run now. It ends, or begins anew."""
        with self._runs.lock:
            self._thread = self._cancel = None

    def interrupt(self, reason, limit):
        """Called with the lock held."""
        if self.reason is not None:
            return
        self.reason, self.limit = reason, limit
        if self._cancel is not None:
            self._cancel()
        elif self._thread is not None:
            # Looked for first: what it waits for once it cleans up is not to be cancelled.
            stop_waiting = waiting(self._thread)
            raise_in(self._thread)
            if stop_waiting is not None:
                stop_waiting()

    def end(self):
        """From here on the thread is not the task's: what was to be raised in it and was not, is taken back."""
        with self._runs.lock:
            if self._runs.running.pop(self.identity, None) is None:
                return
            self._runs.note_end(self, self._place)
            if self.reason is not None and self._thread is not None:
                take_back(self._thread)
            self._thread = self._cancel = None

    def give_up(self, pool):
        """Called with the lock held: nobody waits any more, and the thread does not count as the pool's."""
        self.given_up = True
        for thread in list(pool._threads):
            if thread.ident == self._thread:
                pool._threads.discard(thread)
        pool._adjust_thread_count()


def _kind(key):
    """What tasks of one kind have in common."""
    while isinstance(key, tuple) and key:
        key = key[0]
    return key.rpartition("-")[0] if isinstance(key, str) else None


class Runs:
    """All executions, by key and run.

    The runs of those that have begun are written down in a page of memory that the worker sees too (a descriptor, or None
    if it does not), for whoever wants to know what killed this process: one signed number of 8 bytes and the machine's
    byte order each, 0 where there is none, else the run's number plus 1.
    """

    def __init__(self, memory):
        self.lock = threading.Lock()
        self.running = {}
        # How many of each kind have not begun.
        self._waiting = {}
        self._page = mmap.mmap(-1 if memory is None else memory, RUNS_BYTES)
        self._places = list(range(RUNS_BYTES // _RUN.size))

    def new(self, key, run_id):
        """An execution that was taken in."""
        running = Running(self, (key, run_id))
        with self.lock:
            self.running[running.identity] = running
            self._waiting[running.kind] = self._waiting.get(running.kind, 0) + 1
        return running

    def note_begin(self, running):
        """An execution begins. Where that is noted; called with the lock held."""
        self._leave_waiting(running.kind)
        place = self._places.pop() if self._places else -1
        if place >= 0:
            _RUN.pack_into(self._page, place * _RUN.size, running.identity[1] + 1)
        return place

    def note_end(self, running, place):
        """It ended, or never began (None). Called with the lock held."""
        if place is None:
            self._leave_waiting(running.kind)
        elif place >= 0:
            _RUN.pack_into(self._page, place * _RUN.size, 0)
            self._places.append(place)

    def _leave_waiting(self, kind):
        left = self._waiting[kind] - 1
        if left:
            self._waiting[kind] = left
        else:
            del self._waiting[kind]

    def more_of(self, kind):
        """Whether executions of this kind are about to begin, and none of another."""
        waiting = self._waiting
        return len(waiting) == 1 and kind in waiting

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
