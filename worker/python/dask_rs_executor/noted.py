"""What user code changes about its worker, and what must be on the worker process's books before anybody else hears of it."""

import itertools
import threading

from dask.sizeof import sizeof

from .store import small_copy


class Noted:
    """Messages to the worker process that wait until it has taken them in."""

    def __init__(self, link):
        self._link = link
        self._ids = itertools.count()
        self._waiting = {}

    def tell(self, message, then=lambda: None):
        """Sends one and waits. ``then`` is called in one order with what else the worker process says."""
        number, done = next(self._ids), threading.Event()
        self._waiting[number] = then, done
        self._link.send({**message, "id": number})
        done.wait()

    def arrived(self, number):
        """The worker process has taken a message in; called by the thread that reads what it says."""
        # None: a process that was replaced had asked.
        then, done = self._waiting.pop(number, (None, None))
        if done is not None:
            then()
            done.set()


def scatter(noted, values, data):
    """Adds what a task scatters onto its own worker; returns once peers can have it. The sizes."""
    sizes = {key: int(sizeof(value)) for key, value in data.items()}
    described = {key: {"nbytes": sizes[key], "value": small_copy(value, sizes[key])} for key, value in data.items()}

    def keep():
        # Not before: the worker process may just have dropped an older value of the same key.
        for key, value in data.items():
            values[key] = value

    noted.tell({"op": "scattered", "data": described}, keep)
    return sizes
