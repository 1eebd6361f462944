"""What deployers call: `python -m` wrappers, specifications, `dask`'s subcommands, the stand-in for an interpreter."""

import contextlib
import http.client
import json
import os
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest
from dask_rs import BinaryNotFound, find_binary
from dask_rs.options import NANNY, SCHEDULER, WORKER, UnknownOption, arguments
from distributed import Client, Security

DEADLINE = 60


class Started:
    """A process, and what it writes to stderr."""

    def __init__(self, command, **environment):
        self.process = subprocess.Popen(
            command, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment}
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(DEADLINE)
        finally:
            self.process.kill()
            self.process.stderr.close()

    def line_with(self, text):
        lines = []
        for line in self.process.stderr:
            lines.append(line)
            if text in line:
                return line
        raise AssertionError(f"ended without {text!r}:\n{''.join(lines)}")


def children_of(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return file.read().split()


def python_module(module):
    return [sys.executable, "-m", module]


def stand_in(module):
    return [sys.executable, "-c", "from dask_rs.shim import main; main()", "-m", module]


@pytest.mark.parametrize(
    ("scheduler", "worker"),
    [
        (python_module("dask_rs.scheduler"), python_module("dask_rs.worker")),
        (stand_in("distributed.cli.dask_scheduler"), stand_in("distributed.cli.dask_worker")),
    ],
    ids=["modules", "stand-in"],
)
def test_wrappers_become_the_programs(scheduler, worker):
    with Started([*scheduler, "--host", "127.0.0.1", "--port", "0", "--dashboard-address", "127.0.0.1:0"]) as first:
        address = first.line_with("Scheduler at:").split()[-1]
        assert os.path.basename(os.readlink(f"/proc/{first.process.pid}/exe")) == "dask-scheduler"
        line = ["--name", "7", "--nthreads", "1", "--memory-limit", "0.5GiB", "--nanny", "--death-timeout", "60"]
        with Started([*worker, address, *line]) as second, Client(address, timeout=DEADLINE) as client:
            second.line_with("Registered to:")
            assert client.submit(sum, [1, 2]).result(timeout=DEADLINE) == 3


@pytest.mark.parametrize("program", [python_module("dask_rs.spec"), stand_in("distributed.cli.dask_spec")], ids=["module", "stand-in"])
def test_specifications_start_scheduler_and_workers(program):
    opts = {"host": "127.0.0.1", "port": 0, "dashboard_address": ":0"}
    with Started([*program, "--spec", json.dumps({"cls": "distributed.Scheduler", "opts": opts})]) as scheduler:
        address = scheduler.line_with("Scheduler at:").split()[-1]
        worker = {"cls": "distributed.Nanny", "opts": {"nthreads": 1, "resources": {"GPU": 1}}}
        with Started([*program, address, "--spec", json.dumps({"0": worker, "1": worker})]) as workers:
            workers.line_with("Start worker at:")
            with Client(address, timeout=DEADLINE) as client:
                client.wait_for_workers(2, timeout=DEADLINE)
                assert client.submit(sum, [1, 2], resources={"GPU": 1}).result(timeout=DEADLINE) == 3


def test_a_specification_file_may_be_yaml(tmp_path):
    file = tmp_path / "spec.yaml"
    file.write_text("cls: dask.distributed.Worker\nopts:\n  nthreads: 3\n")
    with Started([*python_module("dask_rs.scheduler"), "--host", "127.0.0.1", "--port", "0", "--dashboard-address", ":0"]) as scheduler:
        address = scheduler.line_with("Scheduler at:").split()[-1]
        with Started([*python_module("dask_rs.spec"), address, "--spec-file", str(file)]) as worker:
            assert worker.line_with("Threads:").split()[-1] == "3"


@pytest.mark.parametrize("text", ["", "[]", "3", '{"0": 1}', '{"opts": {}}', "{"])
def test_what_is_no_specification_is_refused(text):
    done = subprocess.run([*python_module("dask_rs.spec"), "--spec", text], capture_output=True, text=True, timeout=DEADLINE)
    assert done.returncode != 0 and done.stderr.startswith("Error:"), done.stderr


def test_a_class_of_somebody_else_is_upstreams_to_start():
    command = [*python_module("dask_rs.spec"), "--spec", json.dumps({"cls": "somebody.elses.Worker", "opts": {}})]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE)
    assert done.returncode != 0 and "No module named 'somebody'" in done.stderr, done.stderr


def test_dasks_own_command_starts_our_programs_unless_told_not_to(installed):
    def version(**environment):
        command = [*python_module("dask"), "scheduler", "--version"]
        return subprocess.run(
            command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": installed, **environment}
        )

    ours = version()
    assert ours.stdout.startswith("dask-scheduler, version"), ours
    assert ours.stderr == ""
    assert not version(DASK_RS_CLI="off").stdout.startswith("dask-scheduler, version")


def test_the_stand_in_is_an_interpreter_for_everything_else():
    program = [sys.executable, "-c", "from dask_rs.shim import main; main()", "-c", "print(6 * 7)"]
    assert subprocess.check_output(program, text=True) == "42\n"


def test_a_missing_program_is_said_clearly(tmp_path, monkeypatch):
    monkeypatch.setenv("DASK_RS_BIN", str(tmp_path))
    with pytest.raises(BinaryNotFound, match=str(tmp_path)):
        find_binary("dask-scheduler")
    (tmp_path / "dask-worker").write_text("#!/bin/sh\n")
    (tmp_path / "dask-worker").chmod(0o755)
    with pytest.raises(BinaryNotFound, match="pip install dask-rs"):
        find_binary("dask-worker")
    done = subprocess.run(python_module("dask_rs.worker"), capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.startswith("Error: dask-worker of dask-rs was not found")


def test_keywords_of_upstreams_classes_become_options():
    scheduler = {"host": "h", "port": 0, "dashboard": True, "dashboard_address": ":8797", "idle_timeout": "5 minutes"}
    expected = ["--dashboard-address", ":8797", "--host", "h", "--port", "0", "--idle-timeout", "5 minutes"]
    assert arguments(SCHEDULER, scheduler) == (expected, {})
    assert arguments(SCHEDULER, {"dashboard": False})[0] == ["--no-dashboard", "--dashboard-address", ":0"]
    assert arguments(SCHEDULER, {"services": {}, "plugins": [], "host": None}) == ([], {})
    nanny = {"port": 1, "worker_port": "2:3", "resources": {"GPU": 2, "MEM": 1e9}, "preload": "p", "preload_argv": ["--x"]}
    expected = ["--nanny-port", "1", "--worker-port", "2:3", "--resources", "GPU=2 MEM=1000000000.0", "--preload", "p"]
    assert arguments(NANNY, nanny) == ([*expected, "--", "--x"], {})
    assert arguments(NANNY, {"env": {"A": 1}, "lifetime_restart": True}) == (["--lifetime-restart"], {"A": "1"})
    assert arguments(WORKER, {"port": 1, "silence_logs": 30})[0] == ["--no-nanny", "--worker-port", "1"]
    with pytest.raises(UnknownOption, match="plugins="):
        arguments(SCHEDULER, {"plugins": [object()]})


def page(url, context):
    with urllib.request.urlopen(url, timeout=DEADLINE, context=context) as answer:
        return answer.read().decode()


def test_pages_are_served_over_tls_where_there_is_a_certificate(tmp_path):
    pytest.importorskip("cryptography", reason="NOT RUN: a certificate cannot be made without cryptography")
    security, stranger = Security.temporary(), Security.temporary()
    variable = "DASK_DISTRIBUTED__SCHEDULER__DASHBOARD__TLS__CERT"
    for name, one in {"pages": security, "stranger": stranger}.items():
        (tmp_path / f"{name}.pem").write_text(one.tls_scheduler_cert + one.tls_scheduler_key)
    certificate = {variable: str(tmp_path / "pages.pem")}
    trusting = ssl.create_default_context(cadata=security.tls_ca_file)
    trusting.check_hostname = False
    with contextlib.ExitStack() as started:

        def start(module, *options, **environment):
            command = [*python_module(f"dask_rs.{module}"), "--host", "127.0.0.1", *options]
            return started.enter_context(Started([*command, "--dashboard-address", "127.0.0.1:0"], **environment))

        scheduler = start("scheduler", "--port", "0", **certificate)
        address = scheduler.line_with("Scheduler at:").split()[-1]
        dashboard = scheduler.line_with("dashboard at:").split()[-1]
        assert dashboard.startswith("https://")
        assert page(dashboard.replace("/status", "/health"), trusting) == "ok"
        with pytest.raises((OSError, http.client.HTTPException)):
            page(dashboard.replace("https", "http"), None)

        def pages_of(worker):
            place = worker.line_with("dashboard at:").split()[-1]
            worker.line_with("Registered to:")
            host, port = place.split(":")
            return f"https://{place}", dashboard.replace("/status", f"/proxy/{port}/{host}")

        direct, through = pages_of(start("worker", address, "--nthreads", "1", **certificate))
        assert page(f"{direct}/health", trusting) == "ok"
        assert "Dask worker" in page(f"{through}/status", trusting)
        _, through = pages_of(start("worker", address, "--nthreads", "1", **{variable: str(tmp_path / "stranger.pem")}))
        with pytest.raises(urllib.error.HTTPError, match="502") as refused:
            page(f"{through}/status", trusting)
        assert "certificate" in refused.value.read().decode()


def test_signals_reach_every_process_of_a_specification():
    opts = {"host": "127.0.0.1", "port": 0, "dashboard_address": ":0"}
    entry = {"cls": "distributed.Scheduler", "opts": opts}
    with Started([*python_module("dask_rs.spec"), "--spec", json.dumps({"a": entry, "b": entry})]) as both:
        both.line_with("Scheduler at:")
        both.line_with("Scheduler at:")
        children = children_of(both.process.pid)
        assert len(children) == 2
        both.process.terminate()
        assert both.process.wait(DEADLINE) == 0
        deadline = time.monotonic() + DEADLINE
        while any(os.path.exists(f"/proc/{pid}") for pid in children):
            assert time.monotonic() < deadline, "the children end"
            time.sleep(0.05)
