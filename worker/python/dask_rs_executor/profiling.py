"""Samples what tasks are doing, for ``Client.profile`` and the dashboards."""

import collections
import copy
import os
import sys
import threading
import time

import dask
from dask.utils import key_split, parse_timedelta
from distributed import profile

# An hour of trees, at one a second.
TREES_MAX = 3600
# With no task for so long, the thread sleeps until there is one.
IDLE_SECONDS = 1
_STOP = os.path.join("dask_rs_executor", "tasks.py")


class Sampler:
    """A thread that looks at every running task now and then and counts the frames it sees.

    ``worker`` has the running threads, and tells which of them wait for a task elsewhere. Frames of a file that ends in
    ``stop`` and what called it do not count. ``turned`` is given each second's trees; otherwise they are kept.
    """

    def __init__(self, worker, stop=_STOP, turned=None):
        self._worker = worker
        self._stop = stop
        self._turned = turned or self._keep
        self._lock = threading.Lock()
        self._wanted = threading.Event()
        self._recent = {None: profile.create()}
        self._history = collections.deque(maxlen=TREES_MAX)

    def start(self):
        """Starts sampling unless the configuration switches it off."""
        if not dask.config.get("distributed.worker.profile.enabled", True):
            return
        interval = parse_timedelta(dask.config.get("distributed.worker.profile.interval", "10ms"))
        cycle = parse_timedelta(dask.config.get("distributed.worker.profile.cycle", "1s"))
        thread = threading.Thread(target=self._run, args=(interval, cycle), name="Dask-Profile", daemon=True)
        thread.start()

    def wake(self):
        """Has to be called once a task is among the worker's active threads."""
        if not self._wanted.is_set():
            self._wanted.set()

    def _run(self, interval, cycle):
        begun = used = time.time()
        while True:
            time.sleep(interval)
            now = time.time()
            if self._worker.active_threads:
                used = now
                self._sample()
            if now - begun >= cycle:
                begun = now
                self._turn()
            if now - used >= IDLE_SECONDS:
                self._wanted.clear()
                # A task that began before that has seen no need to wake anybody.
                if not self._worker.active_threads:
                    self._turn()
                    self._wanted.wait()
                begun = used = time.time()

    def _sample(self):
        with self._worker.active_threads_lock:
            active = {ident: key for ident, key in self._worker.active_threads.items() if not self._worker.waits(ident)}
        # This function's own frame must not be among them: a reference to itself would keep all the others, and the data
        # their variables hold, until the garbage collector finds them.
        frames = {ident: frame for ident, frame in sys._current_frames().items() if ident in active}
        with self._lock:
            while frames:
                ident, frame = frames.popitem()
                profile.process(frame, True, self._recent[None], stop=self._stop)
                tree = self._recent.setdefault(key_split(active[ident]), profile.create())
                profile.process(frame, True, tree, stop=self._stop)

    def _turn(self):
        with self._lock:
            if self._recent[None]["count"]:
                trees, self._recent = self._recent, {None: profile.create()}
                self._turned(trees)

    def turn(self):
        """Gives what was counted to whom it is for, now."""
        # It may have come since, which is for the next time.
        if self._recent[None]["count"]:
            self._turn()

    def _keep(self, trees):
        self._history.append((self._now(), trees))

    def add(self, trees):
        """Adds what a sampler of another process has counted: trees by prefix."""
        with self._lock:
            for key, tree in trees:
                known = self._recent.get(key)
                self._recent[key] = profile.merge(known, tree) if known else tree

    def _now(self):
        return time.time() + self._worker.scheduler_delay

    def tree(self, start=None, stop=None, key=None, server=False):
        """The merged tree of all samples between two times, of one task prefix if given."""
        if server:
            return profile.create()
        trees = [trees[key] for _, trees in self._between(start, stop) if key in trees]
        return profile.merge(*trees) if trees else profile.create()

    def metadata(self, start=0, stop=None):
        """How many samples there are, over time, in all and by prefix."""
        rows = self._between(start, stop)
        return {
            "counts": [(at, trees[None]["count"]) for at, trees in rows],
            "keys": [(at, {k: t["count"] for k, t in trees.items() if k is not None}) for at, trees in rows],
        }

    def _between(self, start, stop):
        with self._lock:
            rows = [*self._history, (self._now(), copy.deepcopy(self._recent))]
        return [(at, trees) for at, trees in rows if (start or 0) <= at and (stop is None or at <= stop)]
