"""Values that are not in this process: inputs held while the others are read from disk, and values asked for by user code."""

import itertools
import threading

from . import tasks


class Holds:
    """Inputs of tasks that are to run once the rest of them is read from disk."""

    def __init__(self):
        self._held = {}

    def begin(self, worker, message):
        """Takes hold of what is here."""
        for key, packed in message["data"].items():
            worker.data.take(key, packed)
        self._held[message["key"], message["run_id"]] = tasks.here(worker, message["dependencies"])

    def take(self, key, run_id):
        """What was held for a run, which is not held any more."""
        return self._held.pop((key, run_id), {})


class Loads:
    """Asks the worker process for values."""

    def __init__(self, link):
        self._link = link
        self._ids = itertools.count()
        self._waiting = {}

    def __call__(self, key):
        """The packed value. Waits for the disk; raises KeyError if the worker does not have it."""
        number, waiting = next(self._ids), Waiting()
        self._waiting[number] = waiting
        self._link.send({"op": "load", "id": number, "key": key})
        waiting.event.wait()
        if waiting.packed is None:
            raise KeyError(key)
        return waiting.packed

    def arrived(self, worker, message):
        """Gives an answer to whoever waits for it, and keeps the value."""
        packed = message["data"]
        if packed is not None:
            worker.data.take(message["key"], packed)
        waiting = self._waiting.pop(message["id"])
        waiting.packed = packed
        waiting.event.set()


class Waiting:
    """Somebody who waits for a value."""

    __slots__ = ("event", "packed")

    def __init__(self):
        self.event = threading.Event()
        self.packed = None
