"""dask-jobqueue's SLURMCluster; `sbatch` runs its jobs at once on this machine, `scancel` ends them."""

import os
import sys

import dask_rs
import pytest
from distributed import Client

jobqueue = pytest.importorskip("dask_jobqueue", reason="NOT RUN: there is no dask-jobqueue")

DEADLINE = 120

# As Slurm, it keeps a copy: the caller removes its file at once.
SBATCH = """#!/bin/sh
cp "$1" "$JOBS/$$.sh"
setsid sh "$JOBS/$$.sh" > "$JOBS/$$.log" 2>&1 < /dev/null &
echo "Submitted batch job $!"
"""
SCANCEL = f"""#!{sys.executable}
import os, sys
os.killpg(int(sys.argv[1]), 15)
"""


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """A directory for jobs' logs, with Slurm's two commands in front of PATH."""
    for name, text in [("sbatch", SBATCH), ("scancel", SCANCEL)]:
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("JOBS", str(tmp_path))
    return tmp_path


def test_jobs_of_slurm_cluster_start_our_workers(slurm, stand_in, eventually):
    cluster = jobqueue.SLURMCluster(
        cores=2,
        processes=2,
        memory="2GB",
        python=stand_in,
        scheduler_cls=dask_rs.Scheduler,
        scheduler_options={"host": "127.0.0.1", "port": 0, "dashboard_address": ":0"},
        local_directory=str(slurm),
        log_directory=str(slurm),
    )
    with cluster, Client(cluster, timeout=DEADLINE) as client:
        assert "-m distributed.cli.dask_worker" in cluster.job_script()
        cluster.scale(jobs=2)
        client.wait_for_workers(4, timeout=DEADLINE)
        workers = client.scheduler_info()["workers"].values()
        assert {worker["nthreads"] for worker in workers} == {1}
        assert client.submit(sum, range(1000)).result(timeout=DEADLINE) == 499500
        parents = client.run(os.getppid)
        names = {os.path.basename(os.readlink(f"/proc/{pid}/exe")) for pid in parents.values()}
        assert names == {"dask-worker"}
        cluster.scale(jobs=1)
        eventually(lambda: len(client.scheduler_info()["workers"]) == 2, "one job's workers are left")
        assert client.submit(sum, [1, 2]).result(timeout=DEADLINE) == 3
    eventually(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in parents.values()), "the jobs have ended")
