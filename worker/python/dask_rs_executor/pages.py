"""Memory that is new to a process, found by several threads at once.

A page costs the kernel, and more so the host of a virtual machine, several times what it costs to fill it. Where many are asked
for in one call, and by several threads, it is a third.
"""

import ctypes
import os
from concurrent.futures import ThreadPoolExecutor

# Memory of this size is made of huge pages where there are any: the kernel clears one faster than 512 small ones.
HUGE_BYTES_MIN = 4 * 2**20
HUGE_PAGE_BYTES = 2 * 2**20
# What one thread does at a time.
PIECE_BYTES = 8 * 2**20
THREADS_MAX = 4
PAGE_BYTES = os.sysconf("SC_PAGESIZE")
MADV_HUGEPAGE = 14
# Of Linux 5.14.
MADV_POPULATE_WRITE = 23

# A call by way of this lets other threads of Python run meanwhile.
_madvise = getattr(ctypes.CDLL(None), "madvise", None)


class Helpers:
    """Threads that start when they are first needed."""

    def __init__(self):
        self._pool = None

    def each(self, work, items):
        """The results of ``work`` for each item, in order. ``work`` may not call this; if a call fails, others may still run."""
        if len(items) < 2:
            return [work(*item) for item in items]
        if self._pool is None:
            count = min(THREADS_MAX, len(os.sched_getaffinity(0)))
            self._pool = ThreadPoolExecutor(count, thread_name_prefix="Dask-Copying")
        calls = [self._pool.submit(work, *item) for item in items]
        return [call.result() for call in calls]

    def forget(self):
        """For a forked child, which has none of the threads."""
        self._pool = None


helpers = Helpers()
os.register_at_fork(after_in_child=helpers.forget)


def pieces(nbytes):
    """Where each piece begins, and its length."""
    return [(first, min(PIECE_BYTES, nbytes - first)) for first in range(0, nbytes, PIECE_BYTES)]


def ask_for_huge_pages(start, nbytes):
    """Has memory that was not used yet made of huge pages, as far as they fit into it."""
    if nbytes >= HUGE_BYTES_MIN:
        _advise(start, nbytes, HUGE_PAGE_BYTES, MADV_HUGEPAGE)


def populate(start, nbytes):
    """Finds the pages of memory that was not used yet."""
    _advise(start, nbytes, PAGE_BYTES, MADV_POPULATE_WRITE)


def _advise(start, nbytes, unit, advice):
    first = -(-start // unit) * unit
    last = (start + nbytes) // unit * unit
    if _madvise is not None and last > first:
        # A kernel that does not know the advice does what it would have done anyway.
        _madvise(ctypes.c_void_p(first), ctypes.c_size_t(last - first), advice)
