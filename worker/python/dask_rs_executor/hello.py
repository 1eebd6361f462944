"""The first message to the worker process, before anything slow is imported: what this interpreter has.

The worker registers with the scheduler on the strength of it, so a worker that starts again is back at once; importing
`distributed` and what it needs goes on meanwhile, and tasks wait for it in the connection.
"""

import importlib.metadata
import importlib.util
import os
import platform
import struct
import sys

# The numbers of 512 runs.
RUNS_BYTES = 512 * 8

# What clients compare (``distributed.versions``): without the first three no task can run.
NEEDED = ("dask", "distributed", "msgpack")
COMPARED = NEEDED + ("cloudpickle", "tornado", "toolz", "numpy", "pandas", "lz4")


def missing():
    """The packages without which this interpreter cannot serve."""
    return [name for name in NEEDED if importlib.util.find_spec(name) is None]


def versions():
    """What ``distributed.versions.get_versions`` reports, from the packages' metadata."""
    python = "%d.%d.%d.%s.%s" % sys.version_info
    uname = os.uname()
    host = {
        "python": python,
        "python-bits": struct.calcsize("P") * 8,
        "OS": uname.sysname,
        "OS-release": uname.release,
        "machine": platform.machine(),
        "processor": "",
        "byteorder": sys.byteorder,
        "LC_ALL": os.environ.get("LC_ALL", "None"),
        "LANG": os.environ.get("LANG", "None"),
    }
    return {"host": host, "packages": {"python": python} | {name: version(name) for name in COMPARED}}


def version(name):
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def runs_memory():
    """A page of memory that outlives this process in the hands of its worker; None where there is no such thing.

    In memory, not in a file: a disk that stands still must not hold up the tasks that begin.
    """
    try:
        memory = os.memfd_create("dask-runs")
        os.ftruncate(memory, RUNS_BYTES)
    except (AttributeError, OSError):
        return None
    return memory


def send(descriptor, runs):
    """Sends the message in the framing of dask's TCP connections; `runs` is what `runs_memory` returned."""
    import msgpack

    body = msgpack.packb([{"op": "ready", "pid": os.getpid(), "versions": versions(), "runs": runs}])
    left = memoryview(struct.pack("<3Q", 16 + len(body), 1, len(body)) + body)
    while left:
        left = left[os.write(descriptor, left) :]
