"""Memory for values that arrive. It serves the next ones once nobody has the last any more.

Filling memory that a process had before takes a fraction of what new memory takes, and values that arrive one after the
other are often of one size.
"""

import contextlib
import mmap
import os
import threading
import time
import weakref

from .pages import HUGE_BYTES_MIN

try:
    import numpy as np
    from distributed.protocol.utils import host_array
except ImportError:
    np = None

    def host_array(size):
        return memoryview(bytearray(size))

# Smaller values are left to the allocator, which has memory at hand.
REGION_BYTES_MIN = 128 * 1024
# Sizes are multiples of this.
STEP_BYTES = 64 * 1024
# What nobody has is kept for so long, ...
KEPT_SECONDS = 2
# ... no more than so much ...
KEPT_BYTES_MAX = 2**30
# ... and no more than this part of the worker's memory limit.
KEPT_SHARE = 16


class Regions:
    """Hands out memory, and takes it back when its last user is gone."""

    def __init__(self):
        # What is freed within the lock may be such memory.
        self._lock = threading.RLock()
        self._free = {}
        self._bytes = 0
        self._bytes_max = KEPT_BYTES_MAX
        self._expiring = False

    def limit(self, memory_limit):
        """Adapts to a worker's memory limit, if it has one."""
        self._bytes_max = min(KEPT_BYTES_MAX, (memory_limit or 2**63) // KEPT_SHARE)

    def take(self, nbytes):
        """A writable view of memory with anything in it, and whether this process has not used it before."""
        if np is None or nbytes < REGION_BYTES_MIN:
            return host_array(nbytes), False
        size = -(-nbytes // STEP_BYTES) * STEP_BYTES
        kept = self._kept(size)
        try:
            region = kept or _new(size)
        except (OSError, ValueError):
            # As many mappings as a process may have.
            return host_array(nbytes), False
        holder = np.frombuffer(region, np.uint8, nbytes)
        weakref.finalize(holder, self._give_back, region).atexit = False
        return memoryview(holder), kept is None

    def _kept(self, size):
        with self._lock:
            regions = self._free.get(size)
            if not regions:
                return None
            self._bytes -= size
            return regions.pop()[1]

    def _give_back(self, region):
        with self._lock:
            if self._bytes + len(region) > self._bytes_max:
                return
            self._free.setdefault(len(region), []).append((time.monotonic(), region))
            self._bytes += len(region)
            expiring, self._expiring = self._expiring, True
        if not expiring:
            self._expire_later()

    def _expire_later(self):
        timer = threading.Timer(KEPT_SECONDS, self._expire)
        timer.daemon = True
        try:
            timer.start()
        except RuntimeError:
            # The interpreter ends.
            return

    def _expire(self):
        with self._lock:
            oldest = time.monotonic() - KEPT_SECONDS
            # More may be given back meanwhile, by this thread's garbage collector.
            before, self._free = self._free, {}
            for size, regions in before.items():
                for freed, region in regions:
                    if freed > oldest:
                        self._free.setdefault(size, []).append((freed, region))
                    else:
                        self._bytes -= size
            expiring = self._expiring = bool(self._free)
        if expiring:
            self._expire_later()

    def stop(self):
        """Keeps nothing any more. For a forked child: whoever had the lock, and the thread that expires, are not there."""
        self._lock = threading.RLock()
        self._free, self._bytes, self._bytes_max = {}, 0, 0


def _new(size):
    region = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if size >= HUGE_BYTES_MIN and hasattr(mmap, "MADV_HUGEPAGE"):
        # A kernel without huge pages does not know the advice.
        with contextlib.suppress(OSError):
            region.madvise(mmap.MADV_HUGEPAGE)
    return region


regions = Regions()
os.register_at_fork(after_in_child=regions.stop)
