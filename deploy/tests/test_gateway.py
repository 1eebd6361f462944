"""dask-gateway's own server with its local backend, its proxy and its client; scheduler and workers are ours."""

import socket
import sys

import pytest

gateway_server = pytest.importorskip("dask_gateway_server", reason="NOT RUN: there is no dask-gateway-server")
from dask_gateway import BasicAuth, Gateway  # noqa: E402

DEADLINE = 120

CONFIG = """
c.DaskGateway.address = "127.0.0.1:{api}"
c.DaskGateway.backend_class = "dask_gateway_server.backends.local.UnsafeLocalBackend"
c.UnsafeLocalBackend.clusters_directory = {directory!r}
c.UnsafeLocalBackend.inherited_environment = ["PATH", "PYTHONPATH", "DASK_RS_BIN", "DASK_PYTHON"]
c.Proxy.address = "127.0.0.1:{proxy}"
c.ClusterConfig.scheduler_cmd = [{python!r}, "-m", "dask_rs.gateway"]
c.ClusterConfig.worker_cmd = [{worker!r}]
c.ClusterConfig.worker_cores = 1
c.ClusterConfig.worker_memory = "1 G"
"""


def free_ports(n):
    sockets = [socket.socket() for _ in range(n)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def test_a_gateway_starts_scales_and_stops_our_cluster(tmp_path, binaries, start, eventually, monkeypatch):
    api, proxy = free_ports(2)
    config = tmp_path / "dask_gateway_config.py"
    clusters = tmp_path / "clusters"
    clusters.mkdir()
    text = CONFIG.format(
        api=api, proxy=proxy, directory=str(clusters), python=sys.executable, worker=str(binaries / "dask-worker")
    )
    config.write_text(text)
    monkeypatch.setenv("DASK_PYTHON", sys.executable)
    server = start([sys.executable, "-m", "dask_gateway_server", "-f", str(config)], cwd=tmp_path)
    server.line_with("Dask-Gateway server started")
    # The proxy asks the server for its routes when it finds it.
    server.line_with("200 GET /api/v1/routes")
    with Gateway(f"http://127.0.0.1:{proxy}", auth=BasicAuth("alice")) as gateway:

        def answers():
            try:
                return gateway.list_clusters() == []
            except ValueError:
                return False

        eventually(answers, "the proxy has the server's routes")
        cluster = gateway.new_cluster()
        try:
            cluster.scale(2)
            client = cluster.get_client()
            client.wait_for_workers(2, timeout=DEADLINE)
            assert client.submit(sum, range(1000)).result(timeout=DEADLINE) == 499500
            kept = client.map(lambda x: x + 1, range(20))
            client.gather(kept)
            cluster.scale(1)
            eventually(lambda: len(client.scheduler_info()["workers"]) == 1, "one worker is left")
            assert sum(client.gather(kept)) == 210
            del kept
            cluster.adapt(minimum=0, maximum=2)
            eventually(lambda: len(client.scheduler_info()["workers"]) == 0, "nobody is left without work")
            assert client.submit(sum, [1, 2]).result(timeout=DEADLINE) == 3
            client.close()
        finally:
            cluster.shutdown()
        eventually(lambda: not gateway.list_clusters(), "the cluster is gone")
