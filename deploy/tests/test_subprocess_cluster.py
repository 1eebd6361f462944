"""Upstream's SubprocessCluster, which calls `python -m dask spec`."""

import contextlib
import os

import psutil
from distributed import Client, SubprocessCluster

DEADLINE = 120

# `dask spec` is the front command, which has another name in a wheel.
FRONT = {"dask", "dask-rs"}


def programs_under(pid):
    names = set()
    with contextlib.suppress(psutil.NoSuchProcess):
        for child in psutil.Process(pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess, FileNotFoundError):
                names.add(os.path.basename(os.readlink(f"/proc/{child.pid}/exe")))
    return names


def test_subprocess_cluster_starts_our_programs(installed, monkeypatch, eventually):
    monkeypatch.setenv("PYTHONPATH", installed)
    cluster = SubprocessCluster(n_workers=1, threads_per_worker=1, dashboard_address=None)
    pids = [cluster.scheduler.process.pid, cluster.workers[0].process.pid]
    try:
        with Client(cluster, timeout=DEADLINE) as client:
            client.wait_for_workers(1, timeout=DEADLINE)
            assert client.submit(sum, [1, 2]).result(timeout=DEADLINE) == 3
        for pid in pids:
            eventually(lambda pid=pid: FRONT & programs_under(pid), "our program runs")
    finally:
        # It kills a worker's processes one by one, and fails when one of them has ended meanwhile.
        with contextlib.suppress(psutil.NoSuchProcess):
            cluster.close()
        for pid in pids:
            with contextlib.suppress(psutil.NoSuchProcess):
                psutil.Process(pid).kill()
