"""Runs Python for a dask-rs nanny: its preload modules, nanny plugins, and functions of ``Client.run(..., nanny=True)``.

Started by the nanny when it is first needed, at its start if it has preload modules; ends with it. One request at a time: a message is an array of one map, in
the framing of dask's TCP connections. Every reply tells the environment that workers are to be started with from then on.
"""

import asyncio
import ctypes
import logging
import os
import signal
import socket
import struct
import sys
import threading
from inspect import isawaitable
from types import SimpleNamespace

logger = logging.getLogger("distributed.nanny")

PR_SET_PDEATHSIG = 1


class Link:
    """The socket to the nanny."""

    def __init__(self, fd):
        self._socket = socket.socket(fileno=fd)
        self._reader = self._socket.makefile("rb")

    def receive(self):
        from distributed.protocol import loads

        self._exactly(8)
        (count,) = struct.unpack("<Q", self._exactly(8))
        lengths = struct.unpack(f"<{count}Q", self._exactly(8 * count))
        (message,) = loads([self._exactly(length) for length in lengths], deserialize=False)
        return message

    def _exactly(self, size):
        data = self._reader.read(size)
        if len(data) != size:
            raise EOFError
        return data

    def send(self, message):
        from distributed.protocol import dumps

        views = [memoryview(bytes(frame)) for frame in dumps([message])]
        lengths = [len(view) for view in views]
        prelude = struct.pack(f"<{len(lengths) + 1}Q", len(lengths), *lengths)
        self._socket.sendall(struct.pack("<Q", len(prelude) + sum(lengths)) + prelude)
        for view in views:
            self._socket.sendall(view)


class Nanny:
    """The nanny as far as it can be seen from here."""

    def __init__(self, options):
        from distributed import preloading
        from distributed._async_taskgroup import AsyncTaskGroup
        from distributed.core import ConnectionPool, Status
        from distributed.security import Security
        from tornado.ioloop import IOLoop

        self.address = self.contact_address = options["address"]
        self.id = options["id"]
        self.scheduler_addr = options["scheduler"]
        self.local_directory = options["directory"]
        self.env, self.pre_spawn_env = {}, {}
        self.plugins, self.preloads = {}, preloading.PreloadManager([])
        self.loop = self.io_loop = IOLoop.current()
        self.status = Status.running
        self.security = Security(**options["tls"]) if options["tls"] else Security()
        self.connection_args = self.security.get_connection_args("worker")
        self.rpc = ConnectionPool(connection_args=self.connection_args, server=self)
        self.scheduler = self.rpc(self.scheduler_addr)
        self.worker_address = None
        self._ongoing_background_tasks = AsyncTaskGroup()
        self._path, self._environ = list(sys.path), dict(os.environ)

    def __repr__(self):
        return f"<Nanny: {self.worker_address}>"

    def __getattr__(self, name):
        raise AttributeError(
            f"dask-rs: the nanny is a native program; Python code on it runs in a process beside it, where the nanny "
            f"has no {name!r}"
        )

    def environment(self):
        """Variables for workers: what plugins and preload modules set, and where modules that they brought are."""
        found = [path for path in sys.path if path not in self._path]
        others = [self.env[name] for name in ("PYTHONPATH",) if name in self.env] or [os.environ.get("PYTHONPATH")]
        path = os.pathsep.join(part for part in (*found, self.local_directory, *others) if part)
        # What is set here would be set in upstream's nanny, whose environment its workers inherit.
        changed = {name: value for name, value in os.environ.items() if self._environ.get(name) != value}
        return {**changed, **{name: str(value) for name, value in self.env.items()}, "PYTHONPATH": path}

    async def load_preloads(self, modules):
        """Imports preload modules, which may fail, and runs their ``dask_setup``, whose errors are logged."""
        import dask
        from distributed import preloading

        argv = dask.config.get("distributed.nanny.preload-argv")
        self.preloads = preloading.process_preloads(self, modules, list(argv), file_dir=self.local_directory)
        await self.preloads.start()

    def is_alive(self):
        """Whether there is a worker."""
        return self.worker_address is not None

    def log_event(self, topic, msg):
        """Sends an event to the scheduler's event log."""
        self._ongoing_background_tasks.call_soon(self.scheduler.log_event, topic=topic, msg=msg)

    # Methods that are remote calls of the nanny itself.

    async def kill(self, timeout=5, reason="nanny-kill"):
        return await self.rpc(self.address).kill(timeout=timeout, reason=reason)

    async def restart(self, timeout=30, reason="nanny-restart"):
        return await self.rpc(self.address).restart(timeout=timeout, reason=reason)

    async def instantiate(self):
        return await self.rpc(self.address).instantiate()

    async def close_gracefully(self, reason="nanny-close-gracefully"):
        return await self.rpc(self.address).close_gracefully(reason=reason)


async def settled(result):
    return await result if isawaitable(result) else result


class Service:
    """Answers the nanny's requests."""

    def __init__(self, nanny):
        self._nanny = nanny
        self._calls = {
            "run": self.run,
            "plugin_add": self.plugin_add,
            "plugin_remove": self.plugin_remove,
            "close": self.close,
        }

    async def run(self, function, args=(), kwargs=None, wait=True):
        from distributed.worker import run

        return await run(self._nanny, None, function, args=args, kwargs=kwargs, wait=wait), False

    async def plugin_add(self, plugin, name=None):
        from distributed.core import error_message
        from distributed.diagnostics.plugin import NannyPlugin, _get_plugin_name
        from distributed.protocol import pickle

        plugin = pickle.loads(plugin)
        assert isinstance(plugin, NannyPlugin), f"{plugin!r} is no nanny plugin"
        name = name or _get_plugin_name(plugin)
        self._nanny.plugins[name] = plugin
        logger.info("Starting Nanny plugin %s", name)
        try:
            if hasattr(plugin, "setup"):
                await settled(plugin.setup(nanny=self._nanny))
        except Exception as error:
            logger.exception("Nanny plugin %s failed to setup", name)
            return error_message(error), False
        return {"status": "OK"}, bool(getattr(plugin, "restart", False))

    async def plugin_remove(self, name):
        from distributed.core import error_message

        logger.info("Removing Nanny plugin %s", name)
        try:
            plugin = self._nanny.plugins.pop(name)
            if hasattr(plugin, "teardown"):
                await settled(plugin.teardown(nanny=self._nanny))
        except Exception as error:
            logger.exception("Nanny plugin %s failed to teardown", name)
            return error_message(error), False
        return {"status": "OK"}, False

    async def close(self):
        """The nanny ends: plugins and preload modules may leave things in order."""
        for name in list(self._nanny.plugins):
            await self.plugin_remove(name)
        await self._nanny.preloads.teardown()
        return {"status": "OK"}, False

    async def answer(self, message):
        from distributed.core import error_message

        request = dict(message["request"])
        op = request.pop("op")
        for reserved in ("reply", "close", "serializers"):
            request.pop(reserved, None)
        self._nanny.worker_address = message["worker_address"]
        try:
            reply, restart = await self._calls[op](**request)
        except Exception as error:
            reply, restart = error_message(error, status="uncaught-error"), False
        return {"reply": reply, "restart": restart, "env": self._nanny.environment()}


async def serve(link):
    options = link.receive()
    nanny = Nanny(options)
    await nanny.rpc.start()
    try:
        if options["preload"]:
            await nanny.load_preloads(list(options["preload"]))
    except Exception as error:
        logger.exception("A preload module cannot be loaded")
        link.send({"refused": f"{type(error).__name__}: {error}"})
        return
    service = Service(nanny)
    requests = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def read():
        try:
            while True:
                loop.call_soon_threadsafe(requests.put_nowait, link.receive())
        except BaseException:
            # Without the nanny there is nobody to work for.
            os._exit(0)

    threading.Thread(target=read, name="dask-rs-link", daemon=True).start()
    link.send({"ready": True, "env": nanny.environment()})
    while True:
        answer = await service.answer(await requests.get())
        try:
            link.send(answer)
        except OSError:
            os._exit(0)
        except Exception as error:
            from distributed.core import error_message

            link.send({**answer, "reply": error_message(error, status="uncaught-error")})


def main():
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    asyncio.run(serve(Link(int(os.environ["DASK_PARENT_FD"]))))


main()
