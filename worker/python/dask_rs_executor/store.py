"""The values that live in this process, and which of them are worth a serialised copy on the other side."""

import collections.abc
import contextlib
import pickle

from distributed.protocol import serialize

from .wire import Packed, Sealed

# Results up to this many bytes are also sent in serialised form, so that peers need not wait for the interpreter.
SMALL_RESULT_BYTES_MAX = 64 * 1024
# A copy is only made of values whose parts can all be looked at within this many steps.
COPY_PARTS_MAX = 256

# Most results are scalars: their copy needs no dispatch, and its header is always the same. Any Python reads protocol 4.
_SCALAR_PICKLE_PROTOCOL = 4
_SCALAR_HEADER = {"serializer": "pickle", "writeable": ()}
_SCALAR_PACKED = Sealed(_SCALAR_HEADER, (b"",)).packed

_SCALARS = (bool, int, float, complex, type(None))
_TEXTS = (str, bytes, bytearray)
_CONTAINERS = (tuple, list, set, frozenset)


_ABSENT = object()


class Values(collections.abc.MutableMapping):
    """Task results by key. Values received from elsewhere stay packed until they are read.

    Some of the worker's values are not in this process: on disk, or received and not used here yet. ``load`` gets one of
    them, and raises KeyError if the worker does not have it either.
    """

    def __init__(self, load):
        self._values = {}
        # On disk, and known to be: they are listed as if they were here.
        self._away = {}
        self._load = load

    def __getitem__(self, key):
        value = self.here(key, _ABSENT)
        if value is _ABSENT:
            value = self._load(key)
        return value.load() if isinstance(value, Packed) else value

    def here(self, key, default):
        """The value as it is in this process: packed if it came from elsewhere and was not read."""
        return self._values.get(key, default)

    def __contains__(self, key):
        # The inherited one would decode the value.
        return key in self._values or key in self._away

    def take(self, key, packed):
        """Keeps a value that came from elsewhere, unless one is here."""
        self._values.setdefault(key, packed)
        self._away.pop(key, None)

    def discard(self, key):
        """Forgets a value without looking at it."""
        self._values.pop(key, None)
        self._away.pop(key, None)

    def evict(self, keys):
        """Forgets values that are on disk from now on."""
        for key in keys:
            if self._values.pop(key, _ABSENT) is not _ABSENT:
                self._away[key] = True

    def __setitem__(self, key, value):
        self._values[key] = value
        self._away.pop(key, None)

    def __delitem__(self, key):
        if self._away.pop(key, None) is None:
            del self._values[key]

    def __iter__(self):
        return iter((*tuple(self._values), *tuple(self._away)))

    def __len__(self):
        return len(self._values) + len(self._away)


def small_copy(value, nbytes):
    """The serialised form of a small plain value, or None.

    Only values made of well-known parts are copied: others may hide a large or costly state behind a small size.
    """
    if nbytes > SMALL_RESULT_BYTES_MAX:
        return None
    if type(value) in _SCALARS or type(value) is str:
        return Sealed(_SCALAR_HEADER, (pickle.dumps(value, _SCALAR_PICKLE_PROTOCOL),), _SCALAR_PACKED)
    if not _is_plain(value):
        return None
    with contextlib.suppress(Exception):
        header, frames = serialize(value)
        if sum(memoryview(frame).nbytes for frame in frames) <= SMALL_RESULT_BYTES_MAX:
            return Sealed(header, frames)
    return None


def _is_plain(value):
    waiting, seen = [value], 0
    while waiting:
        part = waiting.pop()
        seen += 1
        if seen > COPY_PARTS_MAX:
            return False
        kind = type(part)
        if kind in _SCALARS or kind in _TEXTS:
            continue
        if kind in _CONTAINERS:
            waiting.extend(part)
        elif kind is dict:
            waiting.extend(part.keys())
            waiting.extend(part.values())
        elif kind.__module__ == "numpy":
            if getattr(getattr(part, "dtype", None), "hasobject", True):
                return False
        elif kind.__module__.split(".")[0] != "pandas" or not hasattr(part, "memory_usage"):
            return False
    return True
