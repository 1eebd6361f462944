"""Upstream's work stealing and active memory manager, which act when they are told to."""

from __future__ import annotations

import asyncio

from distributed.active_memory_manager import ActiveMemoryManagerExtension
from distributed.core import Status
from distributed.stealing import _WORKER_STATE_CONFIRM, WorkStealing

from ordered import OrderedSet, Policies, TaskState, WorkerState


class Sleepers:
    """Who sleeps on the scheduler, until the scenario lets time pass."""

    def __init__(self):
        self.sleeping: list[asyncio.Future] = []

    async def sleep(self, seconds: float) -> None:
        sleeper = asyncio.get_running_loop().create_future()
        self.sleeping.append(sleeper)
        await sleeper

    def wake(self) -> None:
        sleeping, self.sleeping = self.sleeping, []
        for sleeper in sleeping:
            sleeper.set_result(None)


class Asyncio:
    """The module, except for who sleeps."""

    def __init__(self):
        self.sleep = None

    def __getattr__(self, name: str):
        return getattr(asyncio, name)


class Stealing(WorkStealing):
    """Upstream's keeps each task at the level that it had when it was sent out. Here, as on the other side, tasks get
    theirs when a round begins, those sent last first."""

    def __init__(self, scheduler):
        super().__init__(scheduler)
        #: Whether it was open in the last round which worker's tasks come first.
        self.alike = False
        #: Tasks whose worker would not give them back.
        self.refused: dict[TaskState, WorkerState] = {}
        #: Ids of the requests for each task.
        self.requests: dict[str, list[str]] = {}

    def balance(self) -> None:
        self.refused = {ts: ws for ts, ws in self.refused.items() if ts.processing_on is ws}
        stale = {ts: level for ts, (_, level) in self.key_stealable.items()}
        self.key_stealable.clear()
        for address, ws in self.scheduler.workers.items():
            self.stealable[address] = tuple(OrderedSet() for _ in self.cost_multipliers)
            for ts in reversed(ws.processing.order):
                takes_time = not ts.dependencies or self.scheduler._get_prefix_duration(ts.prefix)
                if takes_time and ts not in ws.long_running and ts not in self.in_flight and ts not in self.refused:
                    self.put_key_in_stealable(ts)
                level = self.key_stealable.get(ts, (None, None))[1]
                if level != stale.get(ts):
                    self.scheduler.met["levels anew"] += 1
        self.alike = self.busy_alike()
        super().balance()

    def busy_alike(self) -> bool:
        """Whether two workers are equally busy but for a rounding error."""
        busy = sorted(ws.occupancy + self.in_flight_occupancy[ws] for ws in self.scheduler.workers.values())
        return any(one and self.scheduler.equal((one,), (other,)) for one, other in zip(busy, busy[1:]))

    def _get_thief(self, scheduler, ts, potential_thieves, *, occupancies):
        best = super()._get_thief(scheduler, ts, potential_thieves, occupancies=occupancies)
        if best is None:
            return None
        valid = scheduler.valid_workers(ts)
        open_to = potential_thieves & valid if valid is not None else potential_thieves
        objective = self.stealing_objective(ts, best, occupancies=occupancies)
        equals = {
            ws
            for ws in open_to or potential_thieves
            if scheduler.equal(self.stealing_objective(ts, ws, occupancies=occupancies), objective)
        }
        chosen = [thief for key, _, thief in scheduler.in_flight_there if key == ts.key]
        return scheduler.agree_on(f"{ts.key} from {ts.processing_on.address}", best, equals, chosen)

    def move_task_request(self, ts, victim, thief):
        stimulus_id = super().move_task_request(ts, victim, thief)
        self.requests.setdefault(ts.key, []).append(stimulus_id)
        return stimulus_id

    def confirm(self, event: dict) -> None:
        ts = self.scheduler.tasks.get(event["key"])
        victim = ts.processing_on if ts else None
        stimulus_id = self.requests[event["key"]][-1 - event["back"]]
        asked = ts in self.in_flight and self.in_flight[ts]["stimulus_id"] == stimulus_id
        self.move_task_confirm(key=event["key"], state=event["state"], stimulus_id=stimulus_id, worker=event["worker"])
        if not asked:
            return
        if ts.processing_on is victim and ts not in self.key_stealable:
            self.refused[ts] = victim
        elif event["state"] in _WORKER_STATE_CONFIRM and ts.processing_on:
            self.take_along(ts, victim, ts.processing_on)

    def take_along(self, ts: TaskState, victim: WorkerState, thief: WorkerState) -> None:
        """resources of the stolen: upstream leaves the resources that a task has booked, and an actor, with the worker that
        gave it away; here they go along, and then upstream's do."""
        if ts.resource_restrictions:
            self.scheduler.release_resources(ts, victim)
            self.scheduler.acquire_resources(ts, thief)
            self.scheduler.met["resources of the stolen"] += 1
        if ts in victim.actors:
            victim.actors.discard(ts)
            thief.actors.add(ts)
            self.scheduler.met["resources of the stolen"] += 1


class Manager(ActiveMemoryManagerExtension):
    """Upstream's walks its policies in the order of their addresses; here in that in which they came."""

    running = True

    def __init__(self, scheduler):
        super().__init__(scheduler, start=False)
        self.policies = Policies.fromkeys(self.policies)
        #: In this step, on the other side: (worker, key) of copies to be made, and to be dropped.
        self.made: set[tuple[str, str]] = set()
        self.dropped: set[tuple[str, str]] = set()

    def told(self, sent: dict[str, list]) -> None:
        """What the other side sent in this step."""
        self.made, self.dropped = set(), set()
        for name, messages in sent.items():
            receiver, key = name.split("|", 1)
            ops = [message[0] for message in messages]
            if "acquire-replicas" in ops:
                self.made.add((receiver, key))
            if "remove-replicas" in ops:
                self.dropped.add((receiver, key))

    def _find_recipient(self, ts, candidates, pending_repl):
        best = super()._find_recipient(ts, candidates, pending_repl)
        if best is None:
            return None
        free = self.scheduler.running - ts.who_has - pending_repl
        free = free if candidates is None else free & candidates
        equals = {ws for ws in free if self.workers_memory[ws] == self.workers_memory[best]}
        taken = {ws.address for ws in pending_repl}
        chosen = [address for address, key in self.made if key == ts.key and address not in taken]
        return self.scheduler.agree_on(f"a copy of {ts.key}", best, equals, chosen)

    def _find_dropper(self, ts, candidates, pending_drop):
        best = super()._find_dropper(ts, candidates, pending_drop)
        if best is None:
            return None
        free = ts.who_has - pending_drop - {waiter.processing_on for waiter in ts.waiters or ()}
        free = free if candidates is None else free & candidates

        def weight(ws: WorkerState):
            return ws.status != Status.running, self.workers_memory[ws]

        equals = {ws for ws in free if weight(ws) == weight(best)}
        taken = {ws.address for ws in pending_drop}
        chosen = [address for address, key in self.dropped if key == ts.key and address not in taken]
        return self.scheduler.agree_on(f"the copy of {ts.key} to drop", best, equals, chosen)
