"""Comms over WebSockets: a client, a worker of ours and one of upstream's, on `ws://` and on `wss://`."""

import http.client
import socket

import dask.array as da
import numpy as np
import pytest
from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.websocket import websocket_connect

RESULT_TIMEOUT = 120
SCATTERED_BYTES = 50_000_000
# Larger than the pieces that upstream makes of a frame, and than what Tornado reads at a time.
MOVED_BYTES = 80_000_000


def inc(x):
    return x + 1


def ones(nbytes):
    return np.ones(nbytes, dtype="u1")


def total(array):
    return int(array.sum())


@pytest.fixture
def scheme(address):
    scheme = address.split("://")[0]
    assert scheme in ("ws", "wss")
    return scheme


@pytest.fixture
def plain(address, scheme):
    """Host and port of a scheduler that strangers can talk to."""
    if scheme != "ws":
        pytest.skip("strangers have no certificate")
    host, port = address.removeprefix("ws://").rsplit(":", 1)
    return host, int(port)


def test_everyone_is_reached_by_websocket(client, scheme, n_workers):
    workers = client.scheduler_info(n_workers=-1)["workers"]
    assert len(workers) == n_workers
    assert all(address.startswith(f"{scheme}://") for address in workers)
    assert client.scheduler.address.startswith(f"{scheme}://")


def test_tasks_and_gathers(client):
    futures = client.map(inc, range(500))
    assert client.gather(futures) == list(range(1, 501))
    assert client.submit(sum, futures).result(timeout=RESULT_TIMEOUT) == sum(range(1, 501))


def test_scattered_values_come_back(client):
    data = np.random.default_rng(0).integers(0, 256, SCATTERED_BYTES, dtype="u1")
    for broadcast in (False, True):
        future = client.scatter(data, broadcast=broadcast, hash=False)
        assert client.submit(total, future).result(timeout=RESULT_TIMEOUT) == total(data)
        assert np.array_equal(future.result(timeout=RESULT_TIMEOUT), data)


def test_an_array_is_computed(client):
    x = da.ones((2000, 2000), chunks=1000)
    assert (x + x.T).sum().compute(timeout=RESULT_TIMEOUT) == 2 * 2000 * 2000


def test_values_move_both_ways_between_workers(client):
    workers = list(client.scheduler_info(n_workers=-1)["workers"])
    for source in workers:
        for target in set(workers) - {source}:
            value = client.submit(ones, MOVED_BYTES, workers=[source], pure=False)
            moved = client.submit(total, value, workers=[target], pure=False)
            assert moved.result(timeout=RESULT_TIMEOUT) == MOVED_BYTES


def test_a_direct_gather_asks_the_workers(client):
    value = client.submit(ones, MOVED_BYTES, pure=False)
    assert total(client.gather(value, direct=True)) == MOVED_BYTES


def test_what_is_no_websocket_is_told_so(plain, client):
    connection = http.client.HTTPConnection(*plain, timeout=20)
    connection.request("GET", "/")
    assert connection.getresponse().status == 400
    with socket.create_connection(plain, timeout=20) as stranger:
        stranger.sendall(bytes(range(256)))
        assert b" 400 " in stranger.recv(1000)
    assert client.submit(inc, 1).result(timeout=RESULT_TIMEOUT) == 2


def test_pages_of_others_get_no_websocket(address, plain, client):
    async def ask():
        await websocket_connect(HTTPRequest(address, headers={"Origin": "http://elsewhere.example"}))

    with pytest.raises(HTTPClientError, match="403"):
        client.sync(ask)


def test_texts_end_the_connection(address, plain, client):
    async def talk():
        sock = await websocket_connect(address)
        assert len(await sock.read_message()) == 8
        assert await sock.read_message()
        await sock.write_message("hello")
        return await sock.read_message()

    assert client.sync(talk) is None
    assert client.submit(inc, 2).result(timeout=RESULT_TIMEOUT) == 3
