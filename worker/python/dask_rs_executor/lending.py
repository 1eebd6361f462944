"""Values for workers of this machine and user: the one Python process copies them from the other's memory.

The lender serialises a value and leaves its large parts where they are; the borrower is told where, and reads them with
``process_vm_readv``, as MPI libraries do. The parts stay in place until the borrower has them or is gone.
"""

import ctypes
import errno
import os

from distributed.utils import ensure_memoryview

from .calls import packed
from .pages import PIECE_BYTES, ask_for_huge_pages, helpers, pieces, populate
from .regions import regions
from .wire import Packed, Sealed

# Smaller parts travel with the message.
LENT_BYTES_MIN = 64 * 1024
# Yama otherwise lets only parents read a process's memory.
PR_SET_PTRACER = 0x59616D61
PR_SET_PTRACER_ANY = ctypes.c_ulong(-1)
# The field of /proc/PID/stat with the time of its start, counted from the one behind the name.
START_FIELD = 19

_libc = ctypes.CDLL(None, use_errno=True)
_process_vm_readv = getattr(_libc, "process_vm_readv", None)
_prctl = getattr(_libc, "prctl", None)


class _Part(ctypes.Structure):
    # struct iovec
    _fields_ = [("address", ctypes.c_void_p), ("nbytes", ctypes.c_size_t)]


class _Buffer(ctypes.Structure):
    # Py_buffer
    _fields_ = [
        ("address", ctypes.c_void_p),
        ("obj", ctypes.c_void_p),
        ("nbytes", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int),
        ("ndim", ctypes.c_int),
        ("format", ctypes.c_char_p),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("suboffsets", ctypes.c_void_p),
        ("internal", ctypes.c_void_p),
    ]


if _process_vm_readv is not None:
    _process_vm_readv.restype = ctypes.c_ssize_t
    _parts = ctypes.POINTER(_Part)
    _process_vm_readv.argtypes = [ctypes.c_int, _parts, ctypes.c_ulong, _parts, ctypes.c_ulong, ctypes.c_ulong]

_get_buffer = ctypes.pythonapi.PyObject_GetBuffer
_get_buffer.argtypes = [ctypes.py_object, ctypes.POINTER(_Buffer), ctypes.c_int]
_release_buffer = ctypes.pythonapi.PyBuffer_Release
_release_buffer.argtypes = [ctypes.POINTER(_Buffer)]
_release_buffer.restype = None
_new_bytes = ctypes.pythonapi.PyBytes_FromStringAndSize
_new_bytes.argtypes = [ctypes.c_void_p, ctypes.c_ssize_t]
_new_bytes.restype = ctypes.py_object


def _address(obj):
    buffer = _Buffer()
    _get_buffer(obj, ctypes.byref(buffer), 0)
    address = buffer.address
    _release_buffer(ctypes.byref(buffer))
    return address


def started(pid):
    """When a process started, in the kernel's ticks: its id alone may be another's by now."""
    with open(f"/proc/{pid}/stat") as stat:
        return int(stat.read().rpartition(")")[2].split()[START_FIELD])


def probe(secret):
    """Where ``secret`` is, which `can_read` in another process looks for."""
    return os.getpid(), _address(secret), len(secret)


def can_read(place, secret):
    """Whether this process may read another's memory, shown by a place of which it knows what is there."""
    try:
        return bytes(_copy(*place, is_writable=False)) == secret
    except (OSError, TypeError):
        return False


def allow_readers():
    """Lets other processes of this user read this one's memory, where the kernel asks for that."""
    if _prctl is not None:
        # Elsewhere it fails, and is not needed.
        _prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0)


def lend(worker, message, values, kept):
    """Serialises values and tells where their large parts are, which ``kept`` keeps there."""
    try:
        allow_readers()
        data = {}
        while values:
            key, value = values.popitem()
            data[key] = in_place(packed(value), kept)
        reply = {"pid": os.getpid(), "started": started(os.getpid()), "data": data}
    except Exception as error:
        # The borrower asks for them to be sent instead.
        reply = {"error": repr(error)}
    worker.link.send({"op": "reply", "id": message["id"], "reply": reply})


def in_place(sealed, kept):
    """A serialised value without its large parts, and where those are, which ``kept`` keeps there."""
    frames, places = [], []
    for index, frame in enumerate(sealed.frames):
        view = ensure_memoryview(frame)
        if view.nbytes < LENT_BYTES_MIN:
            frames.append(frame)
            continue
        # An array or bytearray does not change its place while there is a view of it.
        kept.append(view)
        places.append((index, _address(view), view.nbytes))
        frames.append(b"")
    return {"packed": Sealed(sealed.header, frames), "places": places}


def borrow(worker, message, kept):
    """Copies what a lender left in place, and tells the sizes of the values in ``kept``."""
    try:
        if _process_vm_readv is None:
            raise OSError(errno.ENOSYS, "there is no process_vm_readv")
        lent = message["lent"]
        pid = lent["pid"]
        if started(pid) != lent["started"]:
            raise ProcessLookupError(errno.ESRCH, "the lender is gone")
        copies = _all_copied(pid, lent["data"])
        if started(pid) != lent["started"]:
            raise ProcessLookupError(errno.ESRCH, "the lender is gone")
        kept.update(copies)
        reply = {"sizes": {key: sum(memoryview(it).nbytes for it in value.frames) for key, value in copies.items()}}
    except Exception as error:
        refused = isinstance(error, OSError) and error.errno in (errno.EPERM, errno.ENOSYS)
        reply = {"error": repr(error), "refused": refused}
    worker.link.send({"op": "reply", "id": message["id"], "reply": reply})


def _all_copied(pid, data):
    """Large values one after the other, by several threads each; of the others each thread takes some."""
    copies, groups, nbytes = {}, [], PIECE_BYTES
    for key, item in data.items():
        sizes = [size for _, _, size in item["places"]]
        if any(size > PIECE_BYTES for size in sizes):
            copies[key] = copied(pid, item["packed"], item["places"])
            continue
        if nbytes >= PIECE_BYTES:
            groups.append({})
            nbytes = 0
        groups[-1][key] = item
        nbytes += sum(sizes)

    def copy(group):
        return {key: copied(pid, item["packed"], item["places"]) for key, item in group.items()}

    for group in helpers.each(copy, [(group,) for group in groups]):
        copies.update(group)
    return copies


def copied(pid, packed, places):
    """The same value with its large parts copied from another process."""
    frames = list(packed.frames)
    # Of a pickle's parts only the reader of the pickle knows.
    writable = packed.header.get("writeable", ()) if "pickled-obj" not in packed.header else ()
    for index, address, nbytes in places:
        is_writable = writable[index] is not False if index < len(writable) else True
        frames[index] = _copy(pid, address, nbytes, is_writable)
    return Packed(packed.header, frames)


def _copy(pid, address, nbytes, is_writable):
    if is_writable:
        target, is_new = regions.take(nbytes)
    else:
        # What is `bytes` already need not be made it.
        target, is_new = _new_bytes(None, nbytes), True
    if not is_writable:
        ask_for_huge_pages(_address(target), nbytes)

    def read(first, length):
        # It has the memory itself: one that is late must not write where something else is by then.
        here = _address(target) + first
        if is_new:
            populate(here, length)
        _read(pid, address + first, here, length)

    helpers.each(read, pieces(nbytes))
    return target


def _read(pid, there, here, nbytes):
    done = 0
    while done < nbytes:
        to, source = _Part(here + done, nbytes - done), _Part(there + done, nbytes - done)
        # Other threads run meanwhile.
        n = _process_vm_readv(pid, ctypes.byref(to), 1, ctypes.byref(source), 1, 0)
        if n <= 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        done += n
