"""`SSHCluster` of distributed over a real sshd on this machine."""

import getpass
import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest
from distributed import Client, SSHCluster

DEADLINE = 120

asyncssh = pytest.importorskip("asyncssh", reason="NOT RUN: there is no asyncssh")


@pytest.fixture
def ssh(tmp_path, start):
    """Where a server of this user's own listens, and the key that opens it."""
    sshd = shutil.which("sshd") or "/usr/sbin/sshd"
    if not Path(sshd).exists():
        pytest.skip("NOT RUN: there is no sshd (Debian's openssh-server)")
    for name in ["host", "user"]:
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / name)]
        subprocess.run(command, check=True)
    shutil.copy(tmp_path / "user.pub", tmp_path / "authorized_keys")
    if os.geteuid() == 0:
        os.makedirs("/run/sshd", exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {
        "ListenAddress": "127.0.0.1",
        "HostKey": tmp_path / "host",
        "AuthorizedKeysFile": tmp_path / "authorized_keys",
        "PidFile": tmp_path / "sshd.pid",
        "StrictModes": "no",
        "UsePAM": "no",
        "PermitRootLogin": "yes",
    }
    options = [part for name, value in settings.items() for part in ("-o", f"{name}={value}")]
    server = start([sshd, "-D", "-e", "-f", "/dev/null", "-p", str(port), *options])
    server.line_with("Server listening on")
    return {"port": port, "username": getpass.getuser(), "client_keys": [str(tmp_path / "user")], "known_hosts": None}


def test_ssh_cluster_starts_our_programs_on_its_hosts(ssh, stand_in, eventually):
    cluster = SSHCluster(
        ["127.0.0.1"] * 3,
        connect_options=ssh,
        remote_python=stand_in,
        scheduler_options={"port": 0, "dashboard_address": ":0"},
        worker_options={"nthreads": 1, "memory_limit": "512MiB"},
    )
    with cluster, Client(cluster, timeout=DEADLINE) as client:
        client.wait_for_workers(2, timeout=DEADLINE)
        assert client.submit(sum, range(1000)).result(timeout=DEADLINE) == 499500
        workers = client.scheduler_info()["workers"].values()
        assert {worker["memory_limit"] for worker in workers} == {512 * 2**20}
        parents = client.run(os.getppid)
        names = {os.path.basename(os.readlink(f"/proc/{pid}/exe")) for pid in parents.values()}
        assert names <= {"dask", "dask-rs"}
    eventually(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in parents.values()), "the workers are gone")
