"""A pytest plugin that sends the computes of dask's tests to a cluster, and writes down what became of each test.

One cluster serves all tests; it is replaced when a test leaves it broken. `dask.base.get_scheduler`, through which every
`compute`, `persist` and `optimize` finds its scheduler, gives the cluster's client wherever it would give one of dask's
local schedulers: the default of a collection, a name ("sync", "threads", "processes"), an executor, or the `get` function of
one. Left alone: functions of the tests' own, clients that tests make, `dask.get(...)` called by itself, and the tests of
`OWN_SCHEDULERS`.

Settings: `--suite-scheduler` and `--suite-worker` are the commands, `--suite-outcomes` the file, one JSON object a line.
With `--suite-rounds N` each file's tests are dealt out to N rounds, so that what is there of a run that was cut short is a
fair sample; `--suite-round K` runs one of them. Tests that the file has already are not run again.
"""

import functools
import json
import shlex
import signal
import zlib

import dask
import dask.base
import dask.local
import dask.multiprocessing
import dask.threaded
import pytest
from distributed import Client
from distributed.client import _set_global_client

from .own_clusters import OwnClusters
from .processes import Processes

# These are about the local schedulers themselves.
OWN_SCHEDULERS = (
    "dask/tests/test_local.py",
    "dask/tests/test_threaded.py",
    "dask/tests/test_multiprocessing.py",
    "dask/tests/test_callbacks.py",
    "dask/tests/test_base.py::test_get_scheduler",
    "dask/tests/test_base.py::test_scheduler_keyword",
    "dask/tests/test_base.py::test_raise_get_keyword",
)
LOCAL = (None, dask.local.get_sync, dask.local.get_async, dask.threaded.get, dask.multiprocessing.get)


def pytest_addoption(parser):
    group = parser.getgroup("dask_suite")
    group.addoption("--suite-scheduler", required=True, help="command that starts a scheduler")
    group.addoption("--suite-worker", required=True, help="command that starts a worker")
    group.addoption("--suite-outcomes", required=True, help="file for what became of each test")
    group.addoption("--suite-rounds", type=int, default=1, help="number of rounds to deal the tests out to")
    group.addoption("--suite-round", type=int, help="the only round to run, from 0")


def pytest_configure(config):
    # Tests of interrupts hang where it is ignored, as it is in background jobs.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    config.pluginmanager.register(Suite(config), "dask_suite")


class Suite:
    def __init__(self, config):
        self.commands = [shlex.split(config.getoption(name)) for name in ("suite_scheduler", "suite_worker")]
        self.outcomes = open(config.getoption("suite_outcomes"), "a+")
        self.cluster = None
        self.phases = {}
        self.get_scheduler = dask.base.get_scheduler
        self.own_clusters = OwnClusters(lambda: self.cluster)
        self.computes = 0

    def pytest_collection_modifyitems(self, config, items):
        rounds, only = config.getoption("suite_rounds"), config.getoption("suite_round")
        round_of = {item: zlib.crc32(item.nodeid.encode()) % rounds for item in items}
        self.outcomes.seek(0)
        done = {note["test"] for note in map(json.loads, self.outcomes) if "seconds" in note}
        items[:] = [item for item in items if only in (None, round_of[item]) and item.nodeid not in done]
        items.sort(key=round_of.get)

    def pytest_sessionfinish(self):
        if self.cluster is not None:
            self.cluster.stop()
        self.outcomes.close()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item):
        alone = item.nodeid.startswith(OWN_SCHEDULERS)
        if alone and self.cluster is not None:
            self.cluster.stop()
            self.cluster = None
        if not alone:
            self._prepare()
        try:
            return (yield)
        finally:
            dask.base.get_scheduler = self.get_scheduler
            if self.cluster is not None and not self.cluster.healthy():
                self._note({"test": item.nodeid, "outcome": "broke the cluster", "error": self.cluster.told()})
                self.cluster.stop()
                self.cluster = None

    def _prepare(self):
        if self.cluster is None:
            self.cluster = Processes(*self.commands)
        self.computes = 0
        self.own_clusters.made = False
        _set_global_client(self.cluster.client)
        dask.config.set(scheduler="dask.distributed")
        dask.base.get_scheduler = self._get_scheduler

    @functools.wraps(dask.base.get_scheduler)
    def _get_scheduler(self, *args, **kwargs):
        chosen = self.get_scheduler(*args, **kwargs)
        function = chosen.func if isinstance(chosen, functools.partial) else chosen
        if function in LOCAL:
            chosen = self._client().get
        self.computes += isinstance(getattr(chosen, "__self__", None), Client)
        return chosen

    def _client(self):
        """The client a test made for itself, or the cluster's."""
        try:
            client = Client.current(allow_global=True)
        except ValueError:
            return self.cluster.client
        return self.cluster.client if client.asynchronous else client

    def pytest_runtest_logreport(self, report):
        phases = self.phases.setdefault(report.nodeid, [])
        phases.append(report)
        if report.when == "teardown":
            del self.phases[report.nodeid]
            bad = [phase for phase in phases if phase.failed]
            skipped = [phase for phase in phases if phase.skipped]
            outcome = "failed" if bad else "skipped" if skipped else "passed"
            if not bad and any(hasattr(phase, "wasxfail") for phase in phases):
                outcome = "xfailed" if skipped else "xpassed"
            note = {"test": report.nodeid, "outcome": outcome, "computes": self.computes}
            if self.own_clusters.made:
                note["cluster"] = "its own"
            note["seconds"] = round(sum(phase.duration for phase in phases), 3)
            if bad:
                note["error"] = bad[0].longreprtext[-6000:]
            elif skipped:
                note["error"] = str(getattr(skipped[0], "wasxfail", None) or skipped[0].longrepr)[:300]
            self._note(note)

    def _note(self, note):
        self.outcomes.write(json.dumps(note) + "\n")
        self.outcomes.flush()
