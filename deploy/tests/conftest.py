"""Tests of what runs dask-rs in other places. `.ci/run deploy` runs them, in an environment that has the deployers.

The programs are in $DASK_RS_BIN. A test whose tool is not there says so: SKIPPED, with the reason.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT / "python" / "tests"))

from installing import search_path  # noqa: E402

DEADLINE = 120


@pytest.fixture(scope="session")
def binaries():
    return Path(os.environ["DASK_RS_BIN"])


@pytest.fixture(scope="session")
def installed(tmp_path_factory):
    """A PYTHONPATH that makes the package's entry points known."""
    return search_path(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="session")
def stand_in(tmp_path_factory, installed):
    """What the script `dask-rs-python` is in an installation."""
    path = tmp_path_factory.mktemp("bin") / "dask-rs-python"
    exports = f"export PYTHONPATH='{installed}' DASK_RS_BIN='{os.environ['DASK_RS_BIN']}'\n"
    path.write_text(f"#!/bin/sh\n{exports}exec '{sys.executable}' -m dask_rs.shim \"$@\"\n")
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def eventually():
    def wait(condition, what):
        deadline = time.monotonic() + DEADLINE
        while not condition():
            assert time.monotonic() < deadline, f"{what} never came true"
            time.sleep(0.05)

    return wait


@pytest.fixture
def tool():
    """The path of a program; without it the test was not run, and says so."""

    def find(name, package):
        beside = Path(sys.executable).parent / name
        path = str(beside) if beside.exists() else shutil.which(name)
        if path is None:
            pytest.skip(f"NOT RUN: there is no {name} (package {package})")
        return path

    return find


class Started:
    """A process, and what it writes to stderr (kept in a file, so that it can go on writing)."""

    def __init__(self, command, log, **keywords):
        self.log = log
        with open(log, "w") as stderr:
            self.process = subprocess.Popen(command, stderr=stderr, stdout=stderr, start_new_session=True, **keywords)

    def line_with(self, text):
        deadline = time.monotonic() + DEADLINE
        while time.monotonic() < deadline:
            ended = self.process.poll() is not None
            for line in self.log.read_text(errors="replace").splitlines():
                if text in line:
                    return line
            assert not ended, f"ended with {self.process.returncode} without {text!r}:\n{self.log.read_text()}"
            time.sleep(0.05)
        raise AssertionError(f"no line with {text!r} in:\n{self.log.read_text()}")

    def end(self):
        with contextlib.suppress(ProcessLookupError):
            self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, 9)
            self.process.wait()


@pytest.fixture
def start(tmp_path):
    """Starts processes that end with the test."""
    started = []

    def start(command, **keywords):
        process = Started(command, tmp_path / f"process-{len(started)}.log", **keywords)
        started.append(process)
        return process

    yield start
    for process in reversed(started):
        process.end()
