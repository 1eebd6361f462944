"""`dask_rs.LocalCluster`, used as `distributed.LocalCluster` is."""

import os
import signal
import subprocess
import sys
import time
import urllib.request

import pytest
from dask_rs import LocalCluster, Nanny, Worker
from distributed import Client

DEADLINE = 60


def eventually(condition, what):
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, f"{what} never came true"
        time.sleep(0.05)


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture(scope="module")
def cluster():
    with LocalCluster(n_workers=2, threads_per_worker=1, memory_limit="512MiB", dashboard_address=":0") as cluster:
        yield cluster


@pytest.fixture
def client(cluster):
    with Client(cluster, timeout=DEADLINE) as client:
        yield client


def test_workers_are_there_when_the_cluster_is(cluster, client):
    workers = client.scheduler_info()["workers"].values()
    assert sorted(worker["name"] for worker in workers) == [0, 1]
    assert {worker["memory_limit"] for worker in workers} == {512 * 2**20}
    assert {worker["nthreads"] for worker in workers} == {1}
    assert "workers=2" in repr(cluster)


def test_tasks_run_in_this_interpreter(client):
    assert client.submit(sum, range(1000)).result(timeout=DEADLINE) == 499500
    prefixes = client.run(lambda: sys.prefix)
    assert set(prefixes.values()) == {sys.prefix}


def test_the_dashboard_link_answers(cluster):
    with urllib.request.urlopen(cluster.dashboard_link, timeout=DEADLINE) as answer:
        assert answer.status == 200


def test_logs_are_those_of_scheduler_and_workers(cluster, client):
    logs = cluster.get_logs()
    assert "Scheduler at:" in logs["Scheduler"]
    assert set(client.scheduler_info()["workers"]) < set(logs)
    assert any("Registered to:" in line for line in cluster.workers[0].logs())


def test_scaling_down_by_the_cluster_loses_no_result(cluster, client):
    cluster.scale(4)
    client.wait_for_workers(4, timeout=DEADLINE)
    futures = client.map(lambda x: x + 1, range(200), workers=list(client.scheduler_info()["workers"])[2:])
    client.gather(futures)
    cluster.scale(2)
    eventually(lambda: len(client.scheduler_info()["workers"]) == 2, "two workers are left")
    assert {future.status for future in futures} == {"finished"}
    assert sum(client.gather(futures)) == sum(range(1, 201))
    eventually(lambda: len(cluster.workers) == 2, "the cluster has let two go")


def test_adaptive_scaling_follows_the_work(cluster, client):
    cluster.adapt(minimum=1, maximum=3, interval="100ms", wait_count=2, target_duration="100ms")
    futures = client.map(lambda x: time.sleep(0.2), range(40), pure=False)
    eventually(lambda: len(client.scheduler_info()["workers"]) == 3, "a burst brings a third worker")
    del futures
    eventually(lambda: len(client.scheduler_info()["workers"]) == 1, "idleness leaves one")
    cluster.adapt(minimum=2, maximum=2, interval="100ms")
    client.wait_for_workers(2, timeout=DEADLINE)
    cluster._adaptive.stop()


def test_a_killed_worker_process_comes_back_under_its_nanny(client):
    before = client.run(os.getpid)
    address, pid = next(iter(before.items()))
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: address not in client.scheduler_info()["workers"], "the scheduler notices")
    client.wait_for_workers(len(before), timeout=DEADLINE)


def test_closing_ends_every_process():
    cluster = LocalCluster(n_workers=1, threads_per_worker=2, dashboard_address=None, processes=False)
    processes = [cluster.scheduler.process.pid, cluster.workers[0].process.pid]
    assert type(cluster.workers[0]) is Worker
    with Client(cluster, timeout=DEADLINE) as client:
        assert client.ncores() and list(client.ncores().values()) == [2]
    cluster.close()
    assert not any(alive(pid) for pid in processes)


def test_processes_end_with_the_program_that_was_killed():
    program = (
        "import sys, time\n"
        "from dask_rs import LocalCluster\n"
        "if __name__ == '__main__':\n"
        "    cluster = LocalCluster(n_workers=1, dashboard_address=None)\n"
        "    print(cluster.scheduler.process.pid, cluster.workers[0].process.pid, flush=True)\n"
        "    time.sleep(600)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    try:
        pids = [int(text) for text in process.stdout.readline().split()]
        assert len(pids) == 2 and all(alive(pid) for pid in pids)
    finally:
        process.kill()
        process.wait()
    eventually(lambda: not any(alive(pid) for pid in pids), "scheduler and nanny end")


def test_certificates_of_a_temporary_security_are_used():
    with LocalCluster(n_workers=1, dashboard_address=None, security=True) as cluster:
        assert cluster.scheduler_address.startswith("tls://")
        with Client(cluster, timeout=DEADLINE) as client:
            assert client.submit(lambda: 7).result(timeout=DEADLINE) == 7


def test_a_worker_that_cannot_start_says_why():
    with pytest.raises(RuntimeError, match="(?s)dask-worker.*plenty"):
        LocalCluster(n_workers=1, dashboard_address=None, memory_limit="plenty")


def test_what_programs_cannot_do_is_refused_by_name():
    with pytest.raises(TypeError, match="executor="):
        Nanny("tcp://127.0.0.1:1", executor=object())
    with pytest.raises(TypeError, match="worker_class"):
        LocalCluster(worker_class=int)
