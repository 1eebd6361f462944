"""A server of upstream's that echoes, fails and leaves. Prints its address; ends with its standard input.

Arguments: the scheme; for TLS also the CA, certificate and key.
"""

import asyncio
import sys

from distributed.core import Server
from distributed.security import Security


async def echo(data):
    return data


async def fail(text):
    raise ValueError(text)


async def stream(comm):
    """Sends back each batch with its elements reversed, until an empty one."""
    while batch := await comm.read():
        await comm.write(list(reversed(batch)))
    await comm.write("OK")


async def main(scheme, *tls):
    arguments = {}
    if tls:
        ca, certificate, key = tls
        security = Security(tls_ca_file=ca, tls_scheduler_cert=certificate, tls_scheduler_key=key)
        arguments = security.get_listen_args("scheduler")
    server = Server({"echo": echo, "fail": fail, "stream": stream}, deserialize=False)
    await server.listen(f"{scheme}://127.0.0.1:0", **arguments)
    print(server.address, flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await server.close()


asyncio.run(main(*sys.argv[1:]))
