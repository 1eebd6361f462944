"""What user code sees as its worker: ``get_worker()``, ``dask_worker=`` and the argument of plugins.

The worker itself is another process. This object has the attributes that tasks, plugins, actors and clients inside
tasks use, and passes on what the worker has to know.
"""

import logging
import os
import queue
import sys
import threading
import types
from collections import defaultdict, deque
from concurrent.futures import ThreadPoolExecutor as PlainThreadPool
from inspect import isawaitable

import dask
import distributed.worker as upstream
from distributed import preloading, profile
from distributed._async_taskgroup import AsyncTaskGroup
from distributed.actor import Actor
from distributed.core import ConnectionPool, Status, error_message
from distributed.diagnostics.plugin import WorkerPlugin, _get_plugin_name
from distributed.protocol import pickle
from distributed.protocol.serialize import _is_dumpable
from distributed.security import Security
from distributed.system_monitor import SystemMonitor
from distributed.threadpoolexecutor import ThreadPoolExecutor
from distributed.worker_state_machine import SecedeEvent

from . import tasks
from .apart import TaskProcesses
from .away import Holds, Loads
from .interrupt import Runs
from .noted import Noted, scatter
from .profiling import Sampler
from .regions import regions
from .store import Values

logger = logging.getLogger("distributed.worker")

# Threads that serialise values for peers and clients.
SERVING_THREADS = 2


class Worker(upstream.Worker):
    """The worker as far as it can be seen from its Python process. Never started, never listens."""

    # The base class computes these from parts that live in the other process.
    address = None
    data = None
    status = Status.init
    thread_id = None
    port = None
    listen_address = None

    def __init__(self, link, loop, options):
        self.link = link
        self.loop = self.io_loop = loop
        self.thread_id = threading.get_ident()
        self.address = self._address = self.contact_address = self.listen_address = options["address"]
        # Of this process: what user code looks at is the memory of its own values.
        self.monitor = SystemMonitor()
        self.ip, _, port = self.address.rpartition("://")[2].rpartition(":")
        self._host, self.port = self.ip, int(port)
        self._port = self.port
        self.id = options["id"]
        self.name = options["name"]
        self.nanny = options["nanny"]
        self.local_directory = options["local_directory"]
        self.scheduler_delay = options["scheduler_delay"]
        self.noted = Noted(link)
        self.holds, self.loads = Holds(), Loads(link)
        self.data = Values(self.loads)
        # By the number of the request: what others copy now, and what was copied from them.
        self.lent, self.borrowed = {}, {}
        self.state = types.SimpleNamespace(
            actors={}, nthreads=options["nthreads"], address=self.address, tasks={}, total_resources=options["resources"]
        )
        self.memory_manager = types.SimpleNamespace(memory_limit=options["memory_limit"])
        regions.limit(options["memory_limit"])
        self._make_comms(options["scheduler"], options["tls"])
        self._make_pools(options["nthreads"])
        self.runs = Runs(options["runs"])
        self.apart = TaskProcesses(self, options["task_processes"])
        self._make_records()
        self.sampler = Sampler(self)
        self.status = Status.running
        if self.local_directory not in sys.path:
            sys.path.insert(0, self.local_directory)

    def _make_comms(self, scheduler_address, tls):
        self.security = Security(**tls) if tls else Security()
        self.connection_args = self.security.get_connection_args("worker")
        self.deserializers = None
        self.rpc = ConnectionPool(connection_args=self.connection_args, server=self)
        self.scheduler = self.rpc(scheduler_address)
        self.handlers, self.stream_handlers, self.extensions = {}, {}, {}

    def _make_pools(self, nthreads):
        self.executors = {
            "default": _pool(nthreads, "Dask-Default-Threads"),
            "offload": PlainThreadPool(1, thread_name_prefix="Dask-Offload"),
            "actor": _pool(1, "Dask-Actor-Threads"),
        }
        self.serving = PlainThreadPool(SERVING_THREADS, thread_name_prefix="Dask-Serving")
        self.active_threads, self.active_threads_lock, self.active_keys = {}, threading.Lock(), set()
        self.execution_state = {"scheduler": self.scheduler.address, "ioloop": self.loop, "worker": self}
        self._ongoing_background_tasks = AsyncTaskGroup()

    def _make_records(self):
        self.plugins, self.services, self.periodic_callbacks = {}, {}, {}
        self.preloads = preloading.PreloadManager([])
        # Plugins that hear of transitions.
        self._followers = []
        self.metrics, self.startup_information = {}, {}
        self.threads, self.digests = {}, None
        self.digests_total, self.digests_total_since_heartbeat = defaultdict(int), defaultdict(int)
        self.digests_max = defaultdict(int)
        self._lock, self._client = threading.Lock(), None
        self._deque_handler = types.SimpleNamespace(deque=deque())

    def __repr__(self):
        return f"<Worker {self.address!r}, name: {self.name}, status: {self.status.name}, stored: {len(self.data)}>"

    async def load_preloads(self, options):
        """Loads preload modules and runs their ``dask_setup``; one that cannot be imported ends the process."""
        modules = options["preload"] or dask.config.get("distributed.worker.preload")
        argv = options["preload_argv"] or dask.config.get("distributed.worker.preload-argv")
        self.preloads = preloading.process_preloads(self, modules, list(argv), file_dir=self.local_directory)
        await self.preloads.start()

    # -- what the worker process has to know ------------------------------------------------------------------------

    def log_event(self, topic, msg):
        """Sends an event to the scheduler's event log."""
        if not _is_dumpable(msg):
            raise TypeError(f"Message must be msgpack serializable. Got {type(msg)=} instead.")
        self.link.send({"op": "log-event", "topic": topic, "msg": msg})

    def handle_stimulus(self, *stimuli):
        """Takes the events that library code raises about the running task."""
        for stimulus in stimuli:
            if isinstance(stimulus, SecedeEvent):
                self.link.send(
                    {"op": "seceded", "key": stimulus.key, "compute_duration": float(stimulus.compute_duration)}
                )
            else:
                logger.warning("Ignoring %s: the worker's state is not in this process", type(stimulus).__name__)

    def batched_send(self, msg):
        """Sends on the scheduler's stream; only events may come from here."""
        if msg.get("op") != "log-event":
            raise RuntimeError(f"{msg.get('op')!r} cannot be sent to the scheduler from the Python process")
        self.link.send(msg)

    def exit(self, error):
        """Ends the worker, as SystemExit and KeyboardInterrupt in a task do."""
        status = tasks.exit_status(error)
        logger.critical("Task raised %r: the worker exits with status %d", error, status)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)

    def update_data(self, data, stimulus_id=None):
        """Stores values that a task scatters onto its own worker."""
        return {"nbytes": scatter(self.noted, self.data, data), "status": "OK"}

    async def set_resources(self, **resources):
        """Supplies named are replaced, others stay. The scheduler is told, too."""
        # Not the other way round: a worker that is sent a task for a resource it does not know of gives up.
        self.noted.tell({"op": "set-resources", "resources": {name: float(n) for name, n in resources.items()}})
        self.state.total_resources.update(resources)
        await self.scheduler.set_resources(resources=self.state.total_resources, worker=self.contact_address)

    async def close(self, timeout=30, executor_wait=True, nanny=True, reason="worker-close"):
        """Asks the worker process to close."""
        self.link.send({"op": "close", "nanny": bool(nanny), "reason": str(reason)})

    async def close_gracefully(self, restart=None, reason="worker-close-gracefully"):
        """Asks the worker process to close."""
        await self.close(reason=reason)

    # -- plugins and actors -----------------------------------------------------------------------------------------

    async def plugin_add(self, plugin, name=None, catch_errors=True):
        """Sets a worker plugin up, replacing one of the same name."""
        if isinstance(plugin, bytes):
            plugin = pickle.loads(plugin)
        name = name or _get_plugin_name(plugin)
        if name in self.plugins:
            await self.plugin_remove(name=name)
        self.plugins[name] = plugin
        self._find_followers()
        logger.info("Starting Worker plugin %s", name)
        try:
            if hasattr(plugin, "setup"):
                await _settled(plugin.setup(worker=self))
        except Exception as error:
            logger.exception("Worker plugin %s failed to setup", name)
            if not catch_errors:
                raise
            return error_message(error)
        finally:
            self.report_handlers()
            self.apart.start_anew()
        return {"status": "OK"}

    async def upload_file(self, *args, **kwargs):
        """Puts a file where tasks can import it, in processes of their own too."""
        try:
            return await super().upload_file(*args, **kwargs)
        finally:
            self.apart.start_anew()

    async def plugin_remove(self, name):
        """Tears a worker plugin down."""
        logger.info("Removing Worker plugin %s", name)
        try:
            plugin = self.plugins.pop(name)
            self._find_followers()
            if hasattr(plugin, "teardown"):
                await _settled(plugin.teardown(worker=self))
        except Exception as error:
            logger.exception("Worker plugin %s failed to teardown", name)
            return error_message(error)
        return {"status": "OK"}

    def _find_followers(self):
        self._followers = [plugin for plugin in self.plugins.values() if _follows(plugin)]
        if not self._followers:
            self.state.tasks.clear()

    def tell_transition(self, key, start, finish, **facts):
        """Tells plugins of a step in a task's life here. From any thread; they hear of it on the event loop."""
        if self._followers:
            self.loop.add_callback(self._transition, key, start, finish, facts)

    def _transition(self, key, start, finish, facts):
        task = self.state.tasks.setdefault(key, types.SimpleNamespace(key=key, exception=None, traceback=None))
        task.state = finish
        task.__dict__.update(facts)
        for plugin in list(self._followers):
            try:
                plugin.transition(key, start, finish)
            except Exception:
                logger.info("Plugin '%s' failed with exception", plugin, exc_info=True)
        if finish in ("error", "forgotten"):
            del self.state.tasks[key]

    def report_handlers(self):
        """Tells the worker process which remote calls plugins answer here."""
        self.link.send({"op": "handlers", "calls": list(self.handlers), "stream": list(self.stream_handlers)})

    def get_call_stack(self, keys=None):
        """The stacks of running tasks, by key."""
        with self.active_threads_lock:
            active = {ident: key for ident, key in self.active_threads.items() if keys is None or key in keys}
        # Those in processes of their own first: that takes longer.
        stacks = {key: self.apart.stack(ident) for ident, key in active.items()}
        # Without this thread's own frame, whose variables would then refer to itself.
        frames = {ident: frame for ident, frame in sys._current_frames().items() if ident in active}
        while frames:
            ident, frame = frames.popitem()
            stacks[active[ident]] = stacks[active[ident]] or profile.call_stack(frame)
        return {key: stack for key, stack in stacks.items() if stack}

    def waits(self, ident):
        """Whether a thread waits for a task in a process of its own."""
        return self.apart.has(ident)

    def has(self, key):
        """Whether a value or an actor of this key is here."""
        return key in self.data or key in self.state.actors

    def actor_proxy(self, key):
        """The proxy that stands for an actor of this worker wherever its value is asked for."""
        return Actor(type(self.state.actors[key]), self.address, key, self)

    def is_bound(self):
        """Whether this process has something that can be in no other: actors, or a part in a shuffle."""
        shuffle = self.plugins.get("shuffle")
        return bool(self.state.actors) or bool(shuffle and shuffle.shuffle_runs._active_runs)

    async def tear_down(self):
        """What is due before this process ends."""
        await self.preloads.teardown()
        for name in list(self.plugins):
            await self.plugin_remove(name)
        if self._client is not None:
            closing = self._client.close()
            if isawaitable(closing):
                await closing


def _pool(nthreads, name):
    pool = ThreadPoolExecutor(nthreads, thread_name_prefix=name)
    # The one it comes with is written in Python.
    pool._work_queue = queue.SimpleQueue()
    return pool


def _follows(plugin):
    transition = getattr(type(plugin), "transition", None)
    return transition is not None and transition is not WorkerPlugin.transition


async def _settled(result):
    return await result if isawaitable(result) else result

