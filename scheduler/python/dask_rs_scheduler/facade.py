"""What Python code on the scheduler sees as the scheduler: ``dask_scheduler=`` and the argument of plugins and feeds.

The scheduler itself is another process, and a native program. This object has what programs look at and call most; the
rest is refused by name.
"""

import asyncio
import inspect
import logging
import os
import time
from collections import defaultdict, deque

import distributed.scheduler as upstream
from distributed._async_taskgroup import AsyncTaskGroup
from distributed.core import ConnectionPool, Status
from distributed.diagnostics.plugin import SchedulerPlugin, _get_plugin_name
from distributed.security import Security
from distributed.utils import import_file

from .link import opened
from .views import ClientState, Table, TaskGroup, TaskPrefix, Tasks, WorkerState

logger = logging.getLogger("distributed.scheduler")

# Methods of upstream's scheduler that are remote calls, and the op of each.
METHODS = {
    "adaptive_target": "adaptive_target",
    "add_keys": "add_keys",
    "benchmark_hardware": "benchmark_hardware",
    "broadcast": "broadcast",
    "check_idle": "check_idle",
    "dump_cluster_state_to_url": "dump_cluster_state_to_url",
    "gather": "gather",
    "get_call_stack": "call_stack",
    "get_cluster_state": "get_cluster_state",
    "get_events": "events",
    "get_has_what": "has_what",
    "get_logs": "get_logs",
    "get_metadata": "get_metadata",
    "get_nbytes": "nbytes",
    "get_ncores": "ncores",
    "get_ncores_running": "ncores_running",
    "get_processing": "processing",
    "get_profile": "profile",
    "get_task_prefix_states": "get_task_prefix_states",
    "get_task_status": "get_task_status",
    "get_task_stream": "get_task_stream",
    "get_task_stream_index": "get_task_stream_index",
    "get_who_has": "who_has",
    "get_worker_logs": "worker_logs",
    "identity": "identity",
    "log_event": "log_event",
    "performance_report": "performance_report",
    "proxy": "proxy",
    "rebalance": "rebalance",
    "register_nanny_plugin": "register_nanny_plugin",
    "register_worker_plugin": "register_worker_plugin",
    "replicate": "replicate",
    "restart": "restart",
    "restart_workers": "restart_workers",
    "retire_workers": "retire_workers",
    "scatter": "scatter",
    "set_metadata": "set_metadata",
    "set_restrictions": "set_restrictions",
    "start_task_metadata": "start_task_metadata",
    "stop_task_metadata": "stop_task_metadata",
    "unregister_nanny_plugin": "unregister_nanny_plugin",
    "unregister_worker_plugin": "unregister_worker_plugin",
    "versions": "versions",
    "workers_to_close": "workers_to_close",
}

# Hooks of plugins that the scheduler calls; the others are called here.
HOOKS = (
    "transition",
    "update_graph",
    "add_worker",
    "remove_worker",
    "add_client",
    "remove_client",
    "restart",
    "log_event",
    "valid_workers_downscaling",
)


class Scheduler:
    """The scheduler as far as it can be seen from here."""

    status = Status.running
    validate = False

    def __init__(self, link, introduction):
        self._link = link
        self.address = self.contact_address = introduction["address"]
        self.id = introduction["id"]
        self._started = introduction["started"]
        self.local_directory = introduction["directory"]
        self.loop = self.io_loop = _current_loop()
        self.security = Security()
        self.connection_args = self.security.get_connection_args("scheduler")
        self.rpc = ConnectionPool(connection_args=self.connection_args, server=self)
        self.plugins, self.extensions, self.handlers, self.stream_handlers = {}, {}, {}, {}
        self.periodic_callbacks, self.preloads = {}, []
        self.digests, self.digests_total, self.digests_max = None, defaultdict(int), defaultdict(int)
        self._ongoing_background_tasks = AsyncTaskGroup()
        self.monitor = Monitor()
        self.tasks = Tasks(self)
        self.workers = Table(self, "workers", WorkerState)
        self.clients = Table(self, "clients", ClientState)
        self.task_groups = Table(self, "groups", TaskGroup)
        self.task_prefixes = Table(self, "prefixes", TaskPrefix)

    def __repr__(self):
        return f"<Scheduler {self.address!r}, workers: {len(self.workers)}, tasks: {len(self.tasks)}>"

    def __getattr__(self, name):
        if name in METHODS:
            return self._method(name)
        numbers = self.ask({"op": "dask-rs-numbers"}) if not name.startswith("_") else {}
        if name in numbers:
            return numbers[name]
        raise AttributeError(
            f"dask-rs: the scheduler is a native program; Python code on it runs in a process beside it, where the "
            f"scheduler has no {name!r}"
        )

    def ask(self, request):
        """The scheduler's answer to a remote call; waits."""
        return self._link.ask(request).result()

    def _method(self, name):
        signature = inspect.signature(getattr(upstream.Scheduler, name))
        later = inspect.iscoroutinefunction(getattr(upstream.Scheduler, name))

        def call(*args, **kwargs):
            bound = signature.bind(self, *args, **kwargs)
            request = {"op": METHODS[name]}
            for parameter, value in bound.arguments.items():
                if parameter in ("self", "comm"):
                    continue
                variable = signature.parameters[parameter].kind is inspect.Parameter.VAR_KEYWORD
                request.update(value if variable else {parameter: value})
            return self._later(request) if later else opened(self.ask(request))

        call.__name__ = name
        return call

    async def _later(self, request):
        return await asyncio.wrap_future(self._link.ask(request))

    # -- what is not a remote call of its own -----------------------------------------------------------------------

    def story(self, *keys_or_tasks_or_stimuli):
        """Transitions of these keys or stimuli (``SchedulerState.story``)."""
        wanted = [getattr(what, "key", what) for what in keys_or_tasks_or_stimuli]
        return list(self.ask({"op": "get_story", "keys_or_stimuli": wanted}))

    @property
    def transition_log(self):
        """The latest transitions."""
        return deque(self.ask({"op": "dask-rs-transitions"}))

    @property
    def events(self):
        """All events by topic."""
        return {topic: deque(rows) for topic, rows in self.get_events().items()}

    @property
    def aliases(self):
        """Addresses of workers by name."""
        return {worker.name: worker.address for worker in self.workers.values()}

    @property
    def services(self):
        """Ports of the HTTP server by name."""
        return self.identity()["services"]

    @property
    def running(self):
        """Workers that take tasks."""
        return {worker for worker in self.workers.values() if worker.status == Status.running}

    @property
    def idle(self):
        """Workers without enough to do, by address."""
        return {worker.address: worker for worker in self.workers.values() if worker._facts["idle"]}

    @property
    def saturated(self):
        """Workers with enough to do."""
        return {worker for worker in self.workers.values() if worker._facts["saturated"]}

    def get_runspec(self, key):
        """What a task runs."""
        return self.ask({"op": "get_runspec", "key": key})

    async def remove_worker(self, address, *, stimulus_id=None, expected=False, close=True):
        """Lets go of a worker."""
        request = {"op": "unregister", "address": address, "expected": expected, "close": close}
        return await self._later({**request, "stimulus_id": stimulus_id or f"remove-worker-{time.time()}"})

    async def close(self, fast=None, close_workers=None, reason="unknown"):
        """Asks the scheduler to close."""
        await self._later({"op": "terminate", "reason": str(reason)})

    async def upload_file(self, filename, data, load=True):
        """Keeps a file where Python on the scheduler finds modules."""
        path = os.path.join(self.local_directory, os.path.basename(filename))
        with open(path, "wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
        if load:
            import_file(path)
        return {"status": "OK", "nbytes": len(data)}

    # -- plugins ----------------------------------------------------------------------------------------------------

    def add_plugin(self, plugin, *, idempotent=False, name=None, **kwargs):
        """Has a plugin's hooks called from now on."""
        name = name or _get_plugin_name(plugin)
        if name in self.plugins:
            if idempotent:
                return
            logger.warning("Scheduler already contains a plugin with name %s; overwriting.", name)
        self.plugins[name] = plugin
        self._report_hooks()

    def remove_plugin(self, name=None):
        """Has a plugin's hooks called no longer."""
        if name not in self.plugins:
            raise ValueError(f"Could not find plugin {name!r} among the current scheduler plugins")
        del self.plugins[name]
        self._report_hooks()

    def _report_hooks(self):
        wanted = {hook for plugin in self.plugins.values() for hook in HOOKS if _has_hook(plugin, hook)}
        # Waits, so that nothing which happens from here on is missed.
        self.ask({"op": "dask-rs-hooks", "hooks": sorted(wanted)})

    def call_hook(self, hook, about):
        """Tells every plugin that has this hook."""
        if hook == "transition":
            self._transition(about)
            return
        arguments = {
            "update_graph": lambda: ((self,), dict(about, keys=set(about["keys"]), tasks=list(about["tasks"]))),
            "add_worker": lambda: ((self, about["worker"]), {}),
            "remove_worker": lambda: ((self, about["worker"]), {"stimulus_id": about["stimulus_id"]}),
            "add_client": lambda: ((self, about["client"]), {}),
            "remove_client": lambda: ((self, about["client"]), {}),
            "restart": lambda: ((self,), {}),
            "log_event": lambda: ((about["topic"], about["msg"]), {}),
        }[hook]
        args, kwargs = arguments()
        self._tell(hook, *args, **kwargs)

    def _transition(self, about):
        key = about["key"]
        facts = {**about["task"], "state": about["finish"]}
        self.tasks.now = {key: self.tasks._picture(self, facts)}
        record = {name: value for name, value in (about["record"] or {}).items() if name not in ("key", "stimulus_id")}
        try:
            self._tell("transition", key, about["start"], about["finish"], stimulus_id=about["stimulus_id"], **record)
        finally:
            self.tasks.now = {}

    def _tell(self, hook, *args, **kwargs):
        for plugin in list(self.plugins.values()):
            if not _has_hook(plugin, hook):
                continue
            try:
                result = getattr(plugin, hook)(*args, **kwargs)
                if inspect.isawaitable(result):
                    self._ongoing_background_tasks.call_soon(_awaited, result)
            except Exception:
                logger.exception("Plugin failed with exception")


class Monitor:
    """The scheduler's resources over time; here only how long it has been watched, in samples."""

    def __init__(self):
        self._began = time.monotonic()

    @property
    def count(self):
        """Samples so far, at two a second."""
        return int(2 * (time.monotonic() - self._began))


def _has_hook(plugin, hook):
    return getattr(type(plugin), hook, None) not in (None, getattr(SchedulerPlugin, hook))


def _current_loop():
    from tornado.ioloop import IOLoop

    return IOLoop.current()


async def _awaited(result):
    return await result
