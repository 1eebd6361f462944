"""Workers of ours that a test starts by itself. Needs DASK_TEST_WORKER_BINARY."""

import contextlib
import os
import pathlib
import signal
import subprocess
import sys

from waiting import eventually


class OwnWorker:
    """A `dask-worker` process, a nanny unless told otherwise."""

    def __init__(self, scheduler, log, *options, env=None, host="127.0.0.1", before=()):
        self.log = log
        command = [*before, os.environ["DASK_TEST_WORKER_BINARY"], scheduler, "--python", sys.executable]
        command += ["--host", host, "--dashboard-address", "127.0.0.1:0", *options]
        if "--nthreads" not in options:
            command += ["--nthreads", "2"]
        with log.open("wb") as stderr:
            self.process = subprocess.Popen(command, stderr=stderr, env={**os.environ, **(env or {})})

    def says(self, text):
        return text in self.log.read_text()

    def wait_for(self, text):
        eventually(lambda: self.says(text), f"{text!r} in its log")

    def ended(self):
        """Its exit status, once it has ended."""
        eventually(lambda: self.process.poll() is not None, "the end of the worker")
        return self.process.returncode

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


def children(pid):
    """The processes that one started."""
    found = []
    # Each thread has its own.
    for listed in pathlib.Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found += [int(child) for child in listed.read_text().split()]
    return found


def alive(pid):
    """Whether a process runs; the dead that nobody has reaped do not."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False
