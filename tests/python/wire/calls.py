"""Upstream's comms against our listener: every kind of value goes there and comes back the same.

Arguments: the address, the compression that must be agreed ("none" for none), and for TLS the CA, certificate and key.
"""

import asyncio
import sys

import dask
import numpy as np
from distributed.core import connect, rpc
from distributed.protocol import to_serialize
from distributed.security import Security


def same(sent, received):
    if isinstance(sent, np.ndarray):
        return received.dtype == sent.dtype and np.array_equal(sent, received)
    if isinstance(sent, list):
        return len(sent) == len(received) and all(map(same, sent, received))
    return sent == received


async def check_values(echo):
    plain = {"a": (1, 2.5, None, True), ("k", 1): {1, "two"}, "inf": float("inf"), "bytes": b"\0" * 300, "": 2**63 - 1}
    assert await echo(data=plain) == plain
    # numpy scalars are no msgpack: they travel pickled, at any depth.
    assert await echo(data={"x": [np.int64(7)]}) == {"x": (7,)}
    assert await echo(data={"a": to_serialize(1), "b": [to_serialize({"c": 2})]}) == {"a": 1, "b": ({"c": 2},)}
    for value in (
        np.arange(0),
        np.arange(1000.0),
        np.zeros((300, 400)),
        np.random.default_rng(0).random(200_000),
        np.zeros(9_000_000),  # 72 MB: over the size at which upstream splits frames
        [np.arange(10), "text", b"bytes" * 10_000],
        [b"x"] * 70_000,  # one frame each
    ):
        assert same(value, await echo(data=to_serialize(value))), value


async def check_errors(peer):
    try:
        await peer.no_such_operation()
    except Exception as error:
        assert "no_such_operation" in str(error), error
    else:
        raise AssertionError("an unknown operation must fail")
    assert await peer.echo(data="still alive") == "still alive"


async def main(address, compression, *tls):
    expected = None if compression == "none" else compression
    dask.config.set({"distributed.comm.compression": expected})
    arguments = {}
    if tls:
        ca, certificate, key = tls
        security = Security(
            tls_ca_file=ca, tls_client_cert=certificate, tls_client_key=key, require_encryption=True
        )
        arguments = security.get_connection_args("client")
    comm = await connect(address, **arguments)
    assert comm.handshake_options["compression"] == expected, comm.handshake_options
    await comm.close()
    async with rpc(address, connection_args=arguments) as peer:
        await check_values(peer.echo)
        await check_errors(peer)


asyncio.run(main(*sys.argv[1:]))
