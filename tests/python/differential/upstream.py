"""A ``distributed.Scheduler`` without network: what it sends is kept, what it decides is asked about.

Nothing of upstream is modified. The scheduler is never started; streams to workers are upstream's own ``BatchedSend``
objects that nobody connects, so that messages stay in their buffers. Choices of workers are upstream's; where its
rule leaves several open, the one that was taken on the other side is taken here too.
"""

from __future__ import annotations

import asyncio
import math
import operator
from collections import Counter, defaultdict

import distributed.scheduler as module
from dask._task_spec import DataNode, Task, TaskRef
from distributed.batched import BatchedSend
from distributed.core import Status
from distributed.protocol import Serialized, serialize, to_serialize
from distributed.scheduler import Scheduler

from operations import Asyncio, Manager, Sleepers, Stealing
from ordered import ClientState, OrderedSet, Queue, TaskState, WorkerState

# Objectives are sums of floats in an order that is nobody's business.
NOISE = 1e-9
# Turns of the event loop in which everything comes to rest that does not sleep.
TURNS_MAX = 20


class Clock:
    """The time both sides are given."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


clock = Clock()
module.time = clock
module.asyncio = Asyncio()


class Graph:
    """What a client's expression becomes on the scheduler: tasks, and annotations by type and key."""

    def __init__(self, tasks: list[dict], keys: list[str]):
        self.tasks = tasks
        self.keys = keys

    def __dask_graph__(self) -> dict:
        # Every graph is without what its keys do not reach: expressions see to it, or upstream does.
        graph = {task["key"]: node(task) for task in self.tasks}
        reached = module._cull(graph, set(self.keys))
        return {key: made for key, made in graph.items() if key in reached}

    def __dask_annotations__(self) -> dict:
        annotations: defaultdict[str, dict] = defaultdict(dict)
        for task in self.tasks:
            key = task["key"]
            if task["priority"]:
                annotations["priority"][key] = task["priority"]
            if task["retries"]:
                annotations["retries"][key] = task["retries"]
            if task["workers"]:
                annotations["workers"][key] = task["workers"]
            if task["loose"]:
                annotations["allow_other_workers"][key] = True
            if task["resources"]:
                annotations["resources"][key] = task["resources"]
        return annotations


def node(task: dict):
    if task["literal"] and not task["deps"]:
        return DataNode(task["key"], 1)
    refs = [TaskRef(dep) for dep in task["deps"]]
    made = Task(task["key"], max, *refs, _data_producer=task["data_producer"])
    made._dependencies = OrderedSet(task["deps"])
    return made


class NoComm:
    """The connection of a worker that registers."""

    async def write(self, msg) -> None:
        pass


class Choices:
    """How many choices of a worker were compared, by what upstream's rule says of them."""

    determined = 0
    tied = 0
    noise = 0
    order = 0


class Upstream(Scheduler):
    def __init__(self, allowed_failures: int, met: Counter, operations: bool):
        #: Named differences that were avoided, and how often.
        self.met = met
        self.sleepers = Sleepers()
        super().__init__(
            host="127.0.0.1",
            dashboard=False,
            extensions={"stealing": Stealing, "amm": Manager} if operations else {},
            validate=False,
            allowed_failures=allowed_failures,
        )
        self.queued = Queue(key=operator.attrgetter("priority"))
        self.saturated = OrderedSet()
        self.replicated_tasks = OrderedSet()
        # Retirements under way, and those that ended in this step: token, and who handed everything over.
        self.retiring: dict[int, asyncio.Task] = {}
        self.retired: list[list] = []
        #: Workers that have left.
        self.gone: set[str] = set()
        self.in_flight_there: list[list] = []
        self.choices = Choices()
        self.deciding = None
        self.weighed: dict[WorkerState, tuple] = {}
        # What the other side placed in this step, in order, and how far this side has come.
        self.theirs: list[tuple[str, str]] = []
        self.placed: list[tuple[str, str]] = []
        # Tasks that erred on the other side, and where: they may have been placed where their inputs do not fit.
        self.refused: dict[str, list[str]] = {}
        self.disagreements: list[str] = []
        self.known_before: set[str] = set()
        self.requested: list[str] = []
        self.failed: Exception | None = None
        self.runs: defaultdict[str, list[int]] = defaultdict(list)

    @property
    def in_flight(self) -> dict:
        """Tasks asked back."""
        return self.extensions["stealing"].in_flight if "stealing" in self.extensions else {}

    def start_http_server(self, *args, **kwargs) -> None:
        self.http_server = None

    async def handle_worker(self, comm, worker) -> None:
        """There is no stream to read."""

    # Choices

    def _transition(self, key, *args, **kwargs):
        self.deciding = key
        return super()._transition(key, *args, **kwargs)

    def worker_objective(self, ts, ws):
        objective = super().worker_objective(ts, ws)
        self.weighed[ws] = objective
        return objective

    def decide_worker_non_rootish(self, ts):
        self.weighed = {}
        ws = super().decide_worker_non_rootish(ts)
        open_to = self.equals(ws)
        if ws is not None and not self.weighed and not ts.dependencies:
            open_to |= {
                other
                for other in self.idle.values() or self.workers.values()
                if other.occupancy and close(other.occupancy, ws.occupancy)
            }
        return self.agree(ts, ws, open_to)

    def decide_worker_rootish_queuing_enabled(self):
        ws = super().decide_worker_rootish_queuing_enabled()

        def busy(ws: WorkerState) -> float:
            return len(ws.processing) / ws.nthreads

        open_to = {other for other in self.idle_task_count if ws and busy(other) == busy(ws)}
        return self.agree(self.tasks[self.deciding], ws, open_to)

    def decide_worker_rootish_queuing_disabled(self, ts):
        if ts.group.last_worker_tasks_left < 0:
            # share of less than one: upstream counts on below zero, and the first worker gets the whole group; here the
            # next worker is chosen.
            ts.group.last_worker_tasks_left = 0
            self.met["share of less than one"] += 1
        self.weighed = {}
        ws = super().decide_worker_rootish_queuing_disabled(ts)
        agreed = self.agree(ts, ws, self.equals(ws))
        if agreed is not ws:
            # The group goes on from the agreed worker, as it would have from upstream's own choice.
            tg = ts.group
            if tg.last_worker is ws:
                tg.last_worker = agreed
            tg.last_worker_tasks_left = math.floor((len(tg) / self.total_nthreads) * agreed.nthreads) - 1
        return agreed

    def equals(self, ws: WorkerState | None) -> set[WorkerState]:
        """The workers that upstream's objective does not tell from its choice."""
        if ws is None:
            return set()
        best = self.weighed.get(ws)
        return {ws} | {other for other, objective in self.weighed.items() if equal(objective, best)}

    def agree(self, ts: TaskState, ws: WorkerState | None, open_to: set[WorkerState]) -> WorkerState | None:
        """The other side's choice, if upstream's rule leaves it open."""
        rest = iter(self.theirs)
        mine = [key for key, _ in self.placed].count(ts.key)
        chosen = [address for key, address in rest if key == ts.key][mine : mine + 1]
        if ws is None:
            return None
        if not chosen:
            refused = [other for other in open_to if other.address in self.refused.get(ts.key, ())]
            return refused[0] if refused else ws
        in_step = self.placed == self.theirs[: len(self.placed)]
        in_step = in_step and self.theirs[len(self.placed) : len(self.placed) + 1] == [(ts.key, chosen[0])]
        self.placed.append((ts.key, chosen[0]))
        theirs = self.workers.get(chosen[0])
        if theirs in open_to:
            if len(open_to) == 1:
                self.choices.determined += 1
            elif theirs is ws or self.weighed.get(theirs) == self.weighed.get(ws):
                self.choices.tied += 1
            else:
                self.choices.noise += 1
            return theirs
        if theirs in self.running and not in_step:
            # Several tasks became ready at once. Upstream takes them in the order of a set: what was placed before this
            # one differs, and so does what is best for it.
            self.choices.order += 1
            return theirs
        objectives = {other.address: objective for other, objective in self.weighed.items()}
        self.disagreements.append(
            f"{ts.key} went to {chosen[0]}, upstream leaves open {sorted(o.address for o in open_to)} of {objectives}"
        )
        return ws

    def equal(self, a: tuple, b: tuple) -> bool:
        return equal(a, b)

    def nearly_saturated(self, ws: WorkerState) -> bool:
        """Whether a rounding error decides if a worker is saturated."""
        processing = len(ws.processing)
        pending = ws.occupancy * (processing - ws.nthreads) / (processing * ws.nthreads) if processing else 0
        return close(pending, 1.9 * self.total_occupancy / self.total_nthreads) or close(pending, 0.4)

    def agree_on(self, what: str, best: WorkerState, equals: set[WorkerState], chosen: list[str]) -> WorkerState:
        """The other side's choice, if upstream's rule leaves it open; its own, if the other side made none."""
        if not chosen:
            return best
        agreed = [ws for ws in equals if ws.address in chosen]
        if not agreed:
            self.disagreements.append(f"{what}: {chosen}, upstream leaves open {sorted(ws.address for ws in equals)}")
            return best
        if len(equals) == 1:
            self.choices.determined += 1
        else:
            self.choices.tied += 1
        return agreed[0]

    def _create_taskstate_from_graph(self, *, keys, **kwargs):
        self.failed = None
        try:
            return super()._create_taskstate_from_graph(keys=OrderedSet(self.requested), **kwargs)
        except Exception as error:
            # Upstream answers it with an error for every key, and goes on with half a graph.
            self.failed = error
            raise

    def _task_to_msg(self, ts):
        msg = super()._task_to_msg(ts)
        self.runs[ts.key].append(ts.run_id)
        return msg

    # Events

    async def handle(self, event: dict) -> None:
        op = event["op"].replace("-", "_")
        result = getattr(self, f"on_{op}")(event)
        if result is not None:
            await result
        if self.retiring:
            await self.follow_retirements()

    async def follow_retirements(self) -> None:
        """Lets those go on that do not sleep, and takes down what came of those that ended."""
        for _ in range(TURNS_MAX):
            await asyncio.sleep(0)
        ended = [(token, task) for token, task in self.retiring.items() if task.done()]
        for token, task in ended:
            del self.retiring[token]
            self.retired.append([token, sorted(task.result())])

    async def restart_workers(self, *args, **kwargs) -> None:
        """That the workers leave comes next in the scenario."""

    def fill_open_slots(self) -> bool:
        """Sends queued tasks to workers with open slots; whether there was anything to do."""
        if not self.queued or not self.idle_task_count:
            return False
        waiting = len(self.queued)
        self.stimulus_queue_slots_maybe_opened(stimulus_id="open-slots")
        return len(self.queued) < waiting

    def run_id(self, event: dict) -> int:
        return self.runs[event["key"]][-1 - event["back"]]

    def on_add_worker(self, event: dict):
        return self.add_worker(
            NoComm(),
            address=event["worker"],
            status=event["status"],
            server_id=f"{event['name']}-{clock.now}",
            nthreads=event["nthreads"],
            name=event["name"],
            now=clock.now,
            resources=event["resources"],
            memory_limit=event["memory_limit"],
            metrics=metrics(self.bandwidth),
            services={},
            local_directory="",
            versions={},
            nanny="",
            extra={},
            stimulus_id="worker-connect",
        )

    def on_remove_worker(self, event: dict):
        self.gone.add(event["worker"])
        return self.remove_worker(
            event["worker"], stimulus_id="handle-worker-cleanup", expected=event["expected"], close=event["close"]
        )

    def on_heartbeat(self, event: dict) -> None:
        self.heartbeat_worker(
            address=event["worker"],
            metrics=metrics(event["bandwidth"], event["memory"]),
            executing={key: seconds for key, seconds in event["executing"]},
        )

    def on_set_resources(self, event: dict) -> None:
        self.add_resources(event["worker"], event["resources"])

    def on_worker_status_change(self, event: dict) -> None:
        self.handle_worker_status_change(event["status"], event["worker"], "worker-status-change")

    def on_task_finished(self, event: dict) -> None:
        self.handle_task_finished(
            key=event["key"],
            worker=event["worker"],
            stimulus_id="task-finished",
            run_id=self.run_id(event),
            nbytes=event["nbytes"],
            type=b"type",
            typename=event["typename"],
            metadata={},
            thread=1,
            startstops=[{"action": action, "start": start, "stop": stop} for action, start, stop in event["startstops"]],
        )

    def on_task_erred(self, event: dict) -> None:
        self.handle_task_erred(
            key=event["key"],
            stimulus_id="task-erred",
            worker=event["worker"],
            run_id=self.run_id(event),
            exception=event["exception"],
            traceback=None,
            exception_text=event["exception"],
            traceback_text="",
            thread=None,
            startstops=[],
        )

    def on_release_worker_data(self, event: dict) -> None:
        self.release_worker_data(event["key"], event["worker"], "release-worker-data")

    def on_add_keys(self, event: dict) -> None:
        self.add_keys(event["worker"], event["keys"], "gather-dep-success")

    def on_long_running(self, event: dict) -> None:
        self.handle_long_running(
            key=event["key"],
            worker=event["worker"],
            run_id=self.run_id(event),
            compute_duration=event["compute_duration"],
            stimulus_id="long-running",
        )

    def on_reschedule(self, event: dict) -> None:
        self._reschedule(event["key"], event["worker"], stimulus_id="reschedule")

    def on_request_refresh_who_has(self, event: dict) -> None:
        self.handle_request_refresh_who_has(event["keys"], event["worker"], "find-missing")

    def on_add_client(self, event: dict) -> None:
        # The state's part of `add_client`, which otherwise serves a stream.
        self.clients[event["client"]] = ClientState(event["client"])
        self.client_comms[event["client"]] = BatchedSend(interval="2ms", loop=self.loop)

    def on_remove_client(self, event: dict) -> None:
        self.remove_client(event["client"])
        del self.client_comms[event["client"]]

    def on_update_graph(self, event: dict):
        tasks = event["tasks"]
        self.requested = event["keys"]
        return self.update_graph(
            client=event["client"],
            expr_ser=Serialized(*serialize(to_serialize(Graph(tasks, event["keys"])))),
            keys=set(event["keys"]),
            span_metadata={},
            internal_priority={task["key"]: task["order"] for task in tasks},
            submitting_task=event["submitting_task"],
            actors=[task["key"] for task in tasks if task["actor"] and self.may_become_actor(task)],
            fifo_timeout=event["fifo_timeout"],
        )

    def may_become_actor(self, task: dict) -> bool:
        """actors in name only: upstream calls any known task an actor that a graph has as one, also what a worker runs or
        has run as an ordinary task; here that stays one."""
        ts = self.tasks.get(task["key"])
        if ts is None or ts.run_spec is None:
            return True
        refused = {dts.key for dts in ts.dependencies} != set(task["deps"])
        if not ts.actor and (refused or ts.state in ("processing", "memory")):
            self.met["actors in name only"] += 1
            return False
        return True

    def on_client_releases_keys(self, event: dict) -> None:
        self.client_releases_keys(event["keys"], event["client"])

    def on_client_desires_keys(self, event: dict) -> None:
        self.client_desires_keys(event["keys"], event["client"])

    def on_cancel_keys(self, event: dict) -> None:
        self.stimulus_cancel(event["keys"], event["client"], force=event["force"], reason=None, msg=None)

    def on_report_key(self, event: dict) -> None:
        self.report_on_key(event["key"], client=event["client"])

    def on_update_data(self, event: dict) -> None:
        self.update_data(
            who_has={key: on for key, on, _ in event["data"]},
            nbytes={key: nbytes for key, _, nbytes in event["data"]},
            client=event["client"],
        )

    def on_retry(self, event: dict) -> None:
        self.stimulus_retry(event["keys"])

    def on_restart(self, event: dict):
        return self.restart(wait_for_workers=False, stimulus_id="restart")

    def on_retire_workers(self, event: dict) -> None:
        retirement = self.retire_workers(
            event["workers"], close_workers=event["close"], remove=event["remove"], stimulus_id="retire-workers"
        )
        self.retiring[event["token"]] = asyncio.ensure_future(retirement)
        # Earlier ones look after this one's worker is told, and before this one looks.
        self.sleepers.wake()

    def on_run_amm(self, event: dict) -> None:
        self.extensions["amm"].run_once()

    def on_timeout(self, event: dict) -> None:
        self.extensions["stealing"].balance()
        self.sleepers.wake()

    def on_steal_response(self, event: dict) -> None:
        self.extensions["stealing"].confirm(event)


def close(a: float, b: float) -> bool:
    return abs(a - b) <= NOISE * max(abs(a), abs(b))


def equal(a: tuple, b: tuple) -> bool:
    return all(close(x, y) for x, y in zip(a, b))


def metrics(bandwidth: float, memory: int = 100_000_000) -> dict:
    return {
        "bandwidth": {"total": bandwidth, "workers": {}, "types": {}},
        "memory": memory,
        "spilled_bytes": {"memory": 0, "disk": 0},
        "digests_total_since_heartbeat": {},
    }
