"""What may differ, by name and with its reason; everything else is a finding.

`docs/compatibility.md` has the same list for readers.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

# Averages and occupancies: upstream adds and subtracts floats, our state counts whole nanoseconds and bytes.
TOLERANCE = 1e-6


@dataclass
class Known:
    """Named differences that were met."""

    counts: Counter = field(default_factory=Counter)
    #: The one after which the two states cannot be compared any further.
    ended_by: str | None = None
    #: Workers whose resources were set anew: see `used resources`.
    reset: set[str] = field(default_factory=set)

    def end(self, name: str) -> None:
        self.counts[name] += 1
        self.ended_by = name


class Before:
    """What is needed of the state before the event."""

    def __init__(self, upstream, event: dict):
        self.erred = {key for key, ts in upstream.tasks.items() if ts.state == "erred"}
        self.settled = {
            (cs.client_key, ts.key)
            for cs in upstream.clients.values()
            for ts in cs.wants_what
            if ts.state in ("memory", "erred")
        }


@dataclass
class After:
    """Both sides after the event; pairs are ours and upstream's."""

    line: dict
    upstream: Any
    before: Before
    raised: Exception | None
    #: Tasks that changed on either side: the others were compared before.
    changed: set[str]
    tasks: tuple[dict, dict]
    workers: tuple[dict, dict]
    totals: tuple[dict, dict]
    sent: tuple[dict, dict]

    @property
    def event(self) -> dict:
        return self.line["event"]


def find(after: After, known: Known) -> list[str]:
    """What differs and has no name."""
    for mask in MASKS:
        if mask(after, known):
            known.counts[mask.__doc__.split(":")[0]] += 1
    found = unequal(after)
    for ends in ENDS:
        if found and ends(after):
            known.end(ends.__doc__.split(":")[0])
            return []
    return found


def unequal(after: After) -> list[str]:
    found = list(after.upstream.disagreements)
    for error in (after.raised, after.upstream.failed):
        if error is not None:
            found.append(f"upstream raised {error!r}")
    for what, names in (("tasks", after.changed), ("workers", None), ("sent", None)):
        ours, theirs = getattr(after, what)
        for name in sorted(ours.keys() | theirs.keys() if names is None else names):
            if ours.get(name) != theirs.get(name):
                found += compare(f"{what} {name}", ours.get(name), theirs.get(name))
    if len(after.tasks[0]) != len(after.tasks[1]) and not found:
        found.append(f"tasks that only one side knows: {after.tasks[0].keys() ^ after.tasks[1].keys()}")
    return found + compare("totals", *after.totals)


def compare(name: str, ours, theirs) -> list[str]:
    if ours == theirs:
        return []
    if isinstance(ours, dict) and isinstance(theirs, dict):
        found = []
        for part in sorted(ours.keys() | theirs.keys()):
            found += compare(f"{name}.{part}", ours.get(part), theirs.get(part))
        return found
    if isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        found = []
        for place, (one, other) in enumerate(zip(ours, theirs)):
            found += compare(f"{name}[{place}]", one, other)
        return found
    if isinstance(ours, float) and isinstance(theirs, (int, float)):
        if abs(ours - theirs) <= TOLERANCE * (1 + abs(ours)):
            return []
    return [f"{name}: {ours} here, {theirs} upstream"]


# Differences after which the scenario ends


def cancel_of_the_unwanted(after: After) -> bool:
    """cancel of what nobody wants: upstream's assertion ends the client's connection, here the task is passed through."""
    return after.event["op"] == "cancel-keys" and isinstance(after.raised, AssertionError)


def loose_resources(after: After) -> bool:
    """loose resources: upstream sends a loose task to a worker that lacks the resource, or has too little, and may fail to
    book it; here the task waits for one that has it."""
    return any(
        ts.loose_restrictions
        and ts.processing_on
        and any(ts.processing_on.resources.get(name, 0) < need for name, need in ts.resource_restrictions.items())
        for ts in after.upstream.tasks.values()
        if ts.resource_restrictions
    )


def cancelled_one_by_one(after: After) -> bool:
    """cancelled one by one: upstream lets go of each dependent on its own, and fills the slots that this frees with tasks
    that it calls off a moment later; here all are let go of at once."""
    if after.event["op"] != "cancel-keys":
        return False
    ours, theirs = after.sent
    called_off = any(
        [message[0] for message in messages] == ["compute-task", "free-keys"] and name not in ours
        for name, messages in theirs.items()
    )
    flags = ("idle", "saturated")
    order = any(
        worker[flag] != after.workers[1][address][flag] for address, worker in after.workers[0].items() for flag in flags
    )
    return called_off or order


def loose_without_workers(after: After) -> bool:
    """loose task in no-worker: once a worker runs, upstream leaves the task waiting for one that it names; here it goes
    anywhere, as it would have if a worker had been running when it became ready."""
    if after.event["op"] not in ("add-worker", "worker-status-change"):
        return False
    ours, theirs = after.tasks
    return any(
        ts.loose_restrictions and ts.state == "no-worker" and ours[ts.key]["state"] != "no-worker"
        for ts in after.upstream.tasks.values()
        if ts.key in ours
    )


def waits_for_erred(after: After) -> bool:
    """waits for an erred task: upstream lets a task wait for ever for one that stays erred (a `retry` of some of several
    erred roots, a result lost whose input is erred); here it errs for the same reason."""
    ours, theirs = after.tasks
    return any(
        ts.state == "waiting" and ours[ts.key]["state"] == "erred" and any(dts.state == "erred" for dts in ts.dependencies)
        for ts in after.upstream.tasks.values()
        if ts.key in ours
    )


def refused_inputs(after: After) -> bool:
    """inputs of a refused definition: a graph gives a known key other dependencies; both keep the old ones, but upstream
    makes tasks of the new ones all the same, which nobody wants and nothing ends."""
    if after.event["op"] != "update-graph":
        return False
    ours = after.tasks[0]
    graph = {task["key"]: task["deps"] for task in after.event["tasks"]}
    refused = {
        key for key, deps in graph.items() if key in ours and sorted(deps) != ours[key]["dependencies"]
    }
    return any(
        ts.key not in ours and ts.state == "released" and any(ts.key in graph[key] for key in refused)
        for ts in after.upstream.tasks.values()
    )


def actors_left_behind(after: After) -> bool:
    """actors left behind: upstream goes on counting an actor for the worker to which it was sent, when it is called off
    before it ran there; that worker gets fewer actors from then on."""
    return any(
        ts.state != "processing" or ts.processing_on is not ws
        for ws in after.upstream.workers.values()
        for ts in ws.actors
        if ts.state != "memory"
    )


def blame_of_the_erred(after: After) -> bool:
    """blame of the erred: a graph that names a task which is erred already makes upstream blame another of its erred
    inputs; here the one stands that it erred for."""
    if after.event["op"] != "update-graph":
        return False
    ours, theirs = after.tasks
    return any(
        ours.get(key, task)["blame"] != task["blame"]
        for key, task in theirs.items()
        if task["state"] == "erred" == ours.get(key, task)["state"] and (key in after.before.erred)
    )


def new_resources(after: After) -> bool:
    """new resources: upstream does not look whether a worker with new resources can run what waits for such a one."""
    if after.event["op"] != "set-resources":
        return False
    ours, theirs = after.tasks
    return any(
        theirs[key]["state"] == "no-worker" and task["state"] != "no-worker" for key, task in ours.items() if key in theirs
    )


ENDS = [
    blame_of_the_erred,
    new_resources,
    cancel_of_the_unwanted,
    loose_resources,
    cancelled_one_by_one,
    loose_without_workers,
    waits_for_erred,
    refused_inputs,
    actors_left_behind,
]

# Differences in which upstream is brought into step


def open_slots(upstream, known: Known) -> None:
    """open slots: after the loss of a worker, a retry or a new graph upstream leaves slots open that this has freed, until
    something else happens, and likewise the slot of a task whose inputs do not fit; here they are filled at once, and then
    upstream's are."""
    while upstream.fill_open_slots():
        known.counts["open slots"] += 1


# Differences that do not spread: they are taken out of the comparison


def stale_blame(after: After, known: Known) -> bool:
    """stale blame: upstream keeps `exception_blame` on tasks that were to err but were let go of before."""
    found = False
    for key in after.changed:
        ours, theirs = after.tasks[0].get(key), after.tasks[1].get(key)
        if ours and theirs and theirs["blame"] and theirs["state"] != "erred" and ours["blame"] is None:
            theirs["blame"] = None
            found = True
    return found


def repeated_reports(after: After, known: Known) -> bool:
    """repeated reports: who asks about a settled key makes upstream tell all who want it again; here only who asks is
    told."""
    if after.event["op"] not in ("update-graph", "client-desires-keys", "report-key", "update-data"):
        return False
    found = False
    ours, theirs = after.sent
    for client, key in after.before.settled:
        name = f"{client}|{key}"
        if client != after.event["client"] and name in theirs:
            told = len(ours.get(name, []))
            rest = theirs[name][:told]
            repeats = theirs[name][told:]
            if repeats and all(m in (["key-in-memory", False, None], repeats[0]) for m in repeats):
                found = True
                theirs[name] = rest
                if not rest:
                    del theirs[name]
    return found


def repeated_cancels(after: After, known: Known) -> bool:
    """repeated cancels: upstream tells all clients of each cancelled dependent on its own and once more with the rest;
    here there is one message."""
    if after.event["op"] != "cancel-keys":
        return False
    found = False
    theirs = after.sent[1]
    for name, messages in theirs.items():
        once = [m for n, m in enumerate(messages) if m[0] != "cancelled-keys" or m not in messages[:n]]
        found |= len(once) < len(messages)
        theirs[name] = once
    return found


def used_resources(after: After, known: Known) -> bool:
    """used resources: `set_resources` makes upstream forget what tasks on the worker have booked; the figure is for
    display only."""
    if after.event["op"] == "set-resources":
        known.reset.add(after.event["worker"])
    known.reset &= after.workers[1].keys()
    found = False
    for address in known.reset:
        ours, theirs = after.workers[0][address], after.workers[1][address]
        found |= ours["used_resources"] != theirs["used_resources"]
        theirs["used_resources"] = ours["used_resources"]
    return found


MASKS = [stale_blame, repeated_reports, repeated_cancels, used_resources]
