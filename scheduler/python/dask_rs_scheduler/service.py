"""What the scheduler asks of this process: functions, plugins, their hooks, feeds, preload modules."""

import asyncio
import logging
from inspect import isawaitable

import distributed.worker as upstream
from distributed import preloading
from distributed.core import error_message
from distributed.diagnostics.plugin import SchedulerPlugin, _get_plugin_name
from distributed.protocol import pickle

from .link import opened

logger = logging.getLogger("distributed.scheduler")

# Fields of a request that are not arguments of its handler.
_RESERVED = ("op", "reply", "close", "serializers")

# Plugins that every process which builds graphs must start too: they bring the modules that graphs refer to.
_EVERYWHERE = ("SchedulerUploadFile",)


class Service:
    """Answers requests of the scheduler, and passes what happens there on to plugins."""

    def __init__(self, link, scheduler):
        self._link = link
        self._scheduler = scheduler
        self._feeds = {}
        self._tasks = set()
        self._requests = {
            "run": self.run,
            "handle": self.handle,
            "plugin-add": self.plugin_add,
            "plugin-remove": self.plugin_remove,
            "feed-open": self.feed_open,
            "feed-next": self.feed_next,
            "feed-close": self.feed_close,
            "downscale": self.downscale,
            "group-workers": self.group_workers,
            "preload": self.preload,
            "tear-down": self.tear_down,
        }

    def take(self, message):
        """Handles one message. Requests run side by side; hooks run at once, in order."""
        message = dict(message)
        op = message.pop("op")
        if op == "hook":
            self._scheduler.call_hook(message["hook"], message["about"])
            return
        task = asyncio.ensure_future(self._answer(op, message))
        # The loop itself only keeps a weak reference.
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, op, message):
        number = message.pop("id")
        try:
            reply = await self._requests[op](**message)
        except Exception as error:
            reply = error_message(error, status="uncaught-error")
        self._send(number, reply)

    def _send(self, number, reply):
        try:
            self._link.send({"op": "reply", "id": number, "reply": reply})
        except Exception as error:
            self._link.send({"op": "reply", "id": number, "reply": error_message(error, status="uncaught-error")})

    async def run(self, function, args, kwargs, wait):
        """``run_function``."""
        return await upstream.run(self._scheduler, None, function, args=args, kwargs=kwargs, wait=wait)

    async def handle(self, request):
        """An operation that the scheduler does not know, by the handler that Python code has added for it."""
        arguments = {name: opened(value) for name, value in request.items() if name not in _RESERVED}
        handler = self._scheduler.handlers.get(request["op"])
        if handler is None:
            return {"known": False}
        result = handler(**arguments)
        return {"known": True, "result": await result if isawaitable(result) else result}

    async def plugin_add(self, plugin, name, idempotent):
        """``register_scheduler_plugin``; tells whether processes that build graphs must start the plugin too."""
        plugin = pickle.loads(plugin)
        assert isinstance(plugin, SchedulerPlugin), f"{plugin!r} is no scheduler plugin"
        name = name or _get_plugin_name(plugin)
        everywhere = type(plugin).__name__ in _EVERYWHERE
        if name in self._scheduler.plugins and idempotent:
            return {"added": False, "everywhere": everywhere, "name": name}
        if hasattr(plugin, "start"):
            result = plugin.start(self._scheduler)
            if isawaitable(result):
                await result
        self._scheduler.add_plugin(plugin, name=name, idempotent=idempotent)
        return {"added": True, "everywhere": everywhere, "name": name}

    async def plugin_remove(self, name):
        """``unregister_scheduler_plugin``."""
        self._scheduler.remove_plugin(name=name)

    async def feed_open(self, feed, setup, function, teardown):
        """Begins a feed made of functions of the user's."""
        loaded = [pickle.loads(it) if it else None for it in (setup, function, teardown)]
        setup, function, teardown = loaded
        state = setup(self._scheduler) if setup else None
        if isawaitable(state):
            state = await state
        self._feeds[feed] = function, teardown, state

    async def feed_next(self, feed):
        """The next message of a feed."""
        function, _, state = self._feeds[feed]
        told = function(self._scheduler) if state is None else function(self._scheduler, state)
        return {"told": told}

    async def feed_close(self, feed):
        """Ends a feed."""
        _, teardown, state = self._feeds.pop(feed)
        if teardown:
            teardown(self._scheduler, state)

    async def downscale(self, workers):
        """Which of these workers plugins let go (``valid_workers_downscaling``)."""
        states = [self._scheduler.workers[address] for address in workers if address in self._scheduler.workers]
        for plugin in list(self._scheduler.plugins.values()):
            states = plugin.valid_workers_downscaling(self._scheduler, states)
        return [state.address for state in states]

    async def group_workers(self, function, workers):
        """To which group each of these workers belongs by a function of the user (``key`` of ``workers_to_close``)."""
        group_of = pickle.loads(function)
        known = [address for address in workers if address in self._scheduler.workers]
        return {address: repr(group_of(self._scheduler.workers[address])) for address in known}

    async def preload(self, modules, argv, directory):
        """Loads preload modules and runs their ``dask_setup``."""
        preloads = preloading.process_preloads(self._scheduler, list(modules), list(argv), file_dir=directory)
        self._scheduler.preloads.extend(preloads)
        for preload in preloads:
            await preload.start()

    async def tear_down(self):
        """Runs ``dask_teardown`` of the preload modules, and lets plugins close."""
        for close in [
            *(plugin.before_close for plugin in self._scheduler.plugins.values()),
            *(preload.teardown for preload in self._scheduler.preloads),
            *(plugin.close for plugin in self._scheduler.plugins.values()),
        ]:
            try:
                await close()
            except Exception:
                logger.exception("Could not tear down %r", close)
