"""Sets that are iterated over in one order.

Upstream keeps a task's relations in sets, and the order in which it walks them is that of hashes of strings, which is
another one in every process. Some outcomes depend on it: of an erred task's relations, which are told first. With the
order of ``scheduler/src/state/ids.rs`` (that of insertion, the last one filling a gap) both sides walk the same way.
"""

from __future__ import annotations

import distributed.scheduler as module
from distributed.collections import HeapSet

# Keys of tasks that changed since the last look.
touched: set = set()


class OrderedSet(set):
    """A set in order of insertion; the last element takes the place of one that is removed."""

    def __init__(self, items=(), owner=None):
        super().__init__()
        #: The key of the task whose set this is; the task itself would keep itself alive.
        self.owner = owner
        self.order: list = []
        self.places: dict = {}
        #: The names of its elements, sorted; kept until it changes.
        self.names: list[str] | None = None
        for item in items:
            self.add(item)

    def changed(self) -> None:
        self.names = None
        if self.owner is not None:
            touched.add(self.owner)

    def __iter__(self):
        return iter(self.order)

    def add(self, item) -> None:
        if item not in self.places:
            super().add(item)
            self.changed()
            self.places[item] = len(self.order)
            self.order.append(item)

    def discard(self, item) -> None:
        place = self.places.pop(item, None)
        if place is None:
            return
        super().discard(item)
        self.changed()
        last = self.order.pop()
        if place < len(self.order):
            self.order[place] = last
            self.places[last] = place

    def remove(self, item) -> None:
        if item not in self.places:
            raise KeyError(item)
        self.discard(item)

    def clear(self) -> None:
        super().clear()
        self.changed()
        self.order.clear()
        self.places.clear()

    def copy(self) -> set:
        return set(self.order)


class OrderedDict(dict):
    """A dict without values, in the same order."""

    def __init__(self):
        super().__init__()
        self.order = OrderedSet()

    def __iter__(self):
        return iter(self.order)

    def keys(self):
        return self.order

    def __setitem__(self, key, value) -> None:
        super().__setitem__(key, value)
        self.order.add(key)

    def __delitem__(self, key) -> None:
        super().__delitem__(key)
        self.order.discard(key)


def ordered(cls: type, name: str, sort=None) -> property:
    """An attribute of ``cls`` that keeps the sets assigned to it in order."""
    slot = getattr(cls, name)

    def get(self):
        return slot.__get__(self, cls)

    def set_(self, value) -> None:
        if value is not None:
            value = OrderedSet(sort(self, value) if sort and value else value, owner=self.key)
        slot.__set__(self, value)

    return property(get, set_)


def as_dependents(ts, waiters: set) -> list:
    """Upstream collects waiters from the dependents."""
    return [dts for dts in ts.dependents if dts in waiters]


class TaskState(module.TaskState):
    dependencies = ordered(module.TaskState, "dependencies")
    dependents = ordered(module.TaskState, "dependents")
    waiting_on = ordered(module.TaskState, "waiting_on")
    waiters = ordered(module.TaskState, "waiters", as_dependents)
    who_has = ordered(module.TaskState, "who_has")
    who_wants = ordered(module.TaskState, "who_wants")

    def __init__(self, key, *args, **kwargs):
        # Before all else: it is known by these when its sets are made.
        object.__setattr__(self, "key", key)
        object.__setattr__(self, "_hash", hash(key))
        super().__init__(key, *args, **kwargs)

    def __setattr__(self, name: str, value) -> None:
        object.__setattr__(self, name, value)
        touched.add(self.key)


class WorkerState(module.WorkerState):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.processing = OrderedSet()
        self._has_what = OrderedDict()
        # Sets of workers are walked by name: w1, w2, ...
        self._hash = int(self.name[1:]) - 1


class ClientState(module.ClientState):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.wants_what = OrderedSet()


class Policies(dict):
    """Policies of the active memory manager, first come first."""

    def add(self, policy) -> None:
        self[policy] = None

    def remove(self, policy) -> None:
        del self[policy]


class Queue(HeapSet):
    """Queued tasks, first come first served among equals. Upstream's own forgets no place until it comes up: a task that is
    queued again may get the place it had before."""

    __slots__ = ()

    def discard(self, value) -> None:
        super().discard(value)
        self._heap = [entry for entry in self._heap if entry[2]() is not value]
        self._heap.sort()


module.TaskState = TaskState
module.WorkerState = WorkerState
module.ClientState = ClientState
