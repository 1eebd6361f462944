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
    #: What was done about this step's differences.
    followed: set[str] = field(default_factory=set)

    def met(self, name: str) -> None:
        self.counts[name] += 1
        self.followed.add(name)

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
    #: The transitions that upstream made, with what each started from and came to.
    made: list[tuple[str, str, str]]
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
        if found and (name := ends(after, known)):
            known.end(name if isinstance(name, str) else ends.__doc__.split(":")[0])
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
    retired = [[token, sorted(addresses)] for token, addresses in after.line["retired"]]
    if sorted(retired) != sorted(after.upstream.retired):
        found.append(f"retired: {retired} here, {after.upstream.retired} upstream")
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


def cancel_of_the_unwanted(after: After, known: Known) -> bool:
    """cancel of what nobody wants: upstream's assertion ends the client's connection, here the task is passed through."""
    return after.event["op"] == "cancel-keys" and isinstance(after.raised, AssertionError)


def loose_resources(after: After, known: Known) -> bool:
    """loose resources: upstream sends a loose task to a worker that lacks the resource, or has too little, and may fail to
    book it; here the task waits for one that has it."""

    def sent_to(ts) -> list:
        erred_on = [after.upstream.workers.get(address) for address in ts.erred_on or ()]
        return [ws for ws in [ts.processing_on, *erred_on] if ws]

    return any(
        ts.loose_restrictions
        and any(ws.resources.get(name, 0) < need for ws in sent_to(ts) for name, need in ts.resource_restrictions.items())
        for ts in after.upstream.tasks.values()
        if ts.resource_restrictions
    )


def cancelled_one_by_one(after: After, known: Known) -> bool:
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
    return called_off or order or bool(after.upstream.disagreements)


def loose_without_workers(after: After, known: Known) -> bool:
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


def wanted_no_more(after: After, known: Known) -> bool:
    """wanted no more: what a task was to read that errs in the same round after all, upstream computes for nobody; here it
    is left."""

    def erred_now(ts) -> bool:
        return ts.state == "erred" and ts.key not in after.before.erred

    ours = after.tasks[0]
    return any(
        (ts.state in ("waiting", "no-worker", "queued", "processing") or erred_now(ts))
        and not ts.who_wants
        and not ts.waiters
        and ours[ts.key]["state"] == "released"
        for ts in after.upstream.tasks.values()
        if ts.key in ours
    )


def endless_retry(after: After, known: Known) -> bool:
    """endless retry: upstream starts erred dependencies of a dependent over with it, and that one with each of them; where
    two of them err at once, since their inputs fit no worker, it goes on for ever; here each is tried once."""
    return after.raised is not None and after.upstream.transition_counter >= after.upstream.transition_counter_max


def finished_while_retiring(after: After, known: Known) -> bool:
    """finished while retiring: upstream lets a worker go that was empty in an earlier round, with what it has finished since,
    which is computed again; here that is moved away first."""
    ours = {(token, address) for token, addresses in after.line["retired"] for address in addresses}
    early = {address for token, addresses in after.upstream.retired for address in addresses if (token, address) not in ours}
    workers = after.workers[0]
    tasks = after.tasks[0]
    return any(
        len(tasks[key]["who_has"]) == 1 for address in early if address in workers for key in workers[address]["has_what"]
    )


def on_the_edge(after: After, known: Known) -> bool:
    """on the edge: whether a worker is saturated, when it has as much to do as that takes but for a rounding error."""
    ours, theirs = after.workers
    return any(
        after.upstream.nearly_saturated(after.upstream.workers[address])
        for address, worker in ours.items()
        if address in theirs and worker["saturated"] != theirs[address]["saturated"]
    )


def left_while_retiring(after: After, known: Known) -> bool:
    """left while retiring: upstream's `retire_workers` fails with a `KeyError` for one that could not retire and has left by
    then, whatever became of the others; here it is answered."""
    return isinstance(after.raised, KeyError) and after.raised.args[0] in after.upstream.gone


def busy_alike(after: After, known: Known) -> bool:
    """busy alike: which of two workers gives tasks away first that are equally busy but for a rounding error."""
    if after.event["op"] != "timeout" or after.totals[0]["in_flight"] == after.totals[1]["in_flight"]:
        return False
    return after.upstream.extensions["stealing"].alike


def thief_at_rest(after: After, known: Known) -> bool:
    """thief at rest: upstream gives a task to the worker that it was asked back for also when that one has paused or is
    about to leave by then; here it goes where it would go now."""
    if after.event["op"] != "steal-response":
        return False
    ts = after.upstream.tasks.get(after.event["key"])
    return bool(ts and ts.processing_on and ts.processing_on not in after.upstream.running)


def retried_for_nobody(after: After, known: Known) -> bool:
    """retried for nobody: upstream lets go of an erred task once the last one that was to read it errs too, which counts as
    a retry: it and its erred dependents are begun again, and called off; here they stay erred."""
    ours = after.tasks[0]
    begun = {key for key, start, finish in after.made if (start, finish) == ("erred", "released")}
    return after.event["op"] != "retry" and any(ours[key]["state"] == "erred" for key in begun if key in ours)


def new_resources(after: After, known: Known) -> bool:
    """new resources: upstream does not look whether a worker with new resources can run what waits for such a one."""
    if after.event["op"] != "set-resources":
        return False
    ours, theirs = after.tasks
    return any(
        theirs[key]["state"] == "no-worker" and task["state"] != "no-worker" for key, task in ours.items() if key in theirs
    )


def refused_unknown(after: After, _: Known) -> bool:
    """unknown inputs of a refused definition: a graph gives a known key other dependencies, one of them unknown; upstream
    calls the whole graph off, here the key keeps its definition and needs none of them."""
    if after.event["op"] != "update-graph":
        return False
    ours, theirs = after.sent
    called_off = ["cancelled-keys", "lost dependencies"]
    if not any(called_off in messages and name not in ours for name, messages in theirs.items()):
        return False
    known = after.tasks[0]
    graph = {task["key"]: sorted(task["deps"]) for task in after.event["tasks"]}
    return any(known[key]["dependencies"] != deps for key, deps in graph.items() if key in known)


def followed(after: After, known: Known) -> str | None:
    """One of those in which upstream is brought into step: it did other things before it was."""
    return min(known.followed - {"open slots"}, default=None)


ENDS = [
    endless_retry,
    finished_while_retiring,
    on_the_edge,
    left_while_retiring,
    busy_alike,
    thief_at_rest,
    new_resources,
    cancel_of_the_unwanted,
    loose_resources,
    cancelled_one_by_one,
    loose_without_workers,
    wanted_no_more,
    retried_for_nobody,
    refused_unknown,
    followed,
]

# Differences in which upstream is brought into step


def follow(upstream, line: dict, known: Known) -> None:
    """Does to upstream what it leaves undone."""
    known.followed.clear()
    actors_left_behind(upstream, known)
    waits_for_erred(upstream, line, known)
    refused_inputs(upstream, line, known)
    open_slots(upstream, known)


def open_slots(upstream, known: Known) -> None:
    """open slots: after the loss of a worker, a retry or a new graph upstream leaves slots open that this has freed, until
    something else happens, and likewise the slot of a task whose inputs do not fit; here they are filled at once, and then
    upstream's are."""
    while upstream.fill_open_slots():
        known.met("open slots")


def actors_left_behind(upstream, known: Known) -> None:
    """actors left behind: upstream goes on counting an actor for the worker to which it was sent, when it is called off
    before it ran there; that worker gets fewer actors from then on."""
    for ws in upstream.workers.values():
        for ts in [ts for ts in ws.actors if ws not in (ts.who_has or ()) and ts.processing_on is not ws]:
            ws.actors.discard(ts)
            known.met("actors left behind")


def waits_for_erred(upstream, line: dict, known: Known) -> None:
    """waits for an erred task: upstream lets a task wait for ever for one that stays erred (a `retry` of some of several
    erred roots, a result lost whose input is erred); here it errs for the same reason."""
    for key, _, finish in line["transitions"]:
        ts = upstream.tasks.get(key)
        if finish != "erred" or ts is None or ts.state not in ("waiting", "released"):
            continue
        erred = [dts for dts in ts.dependencies if dts.state == "erred"]
        if erred:
            ts.exception_blame = erred[0].exception_blame
            upstream.transitions({key: "erred"}, "hopeless")
            known.met("waits for an erred task")


def refused_inputs(upstream, line: dict, known: Known) -> None:
    """inputs of a refused definition: a graph gives a known key other dependencies; both keep the old ones, but upstream
    makes tasks of the new ones all the same, which nobody wants and nothing ends."""
    if line["event"]["op"] != "update-graph":
        return
    created = [task["key"] for task in line["event"]["tasks"] if task["key"] not in line["tasks"]]
    left = [key for key in created if key in upstream.tasks and upstream.tasks[key].state == "released"]
    left = [key for key in left if not upstream.tasks[key].who_wants and key not in upstream.known_before]
    while left:
        free = [key for key in left if not upstream.tasks[key].dependents]
        if not free:
            return
        for key in free:
            upstream.transitions({key: "forgotten"}, "nobody wants it")
            known.met("inputs of a refused definition")
        left = [key for key in left if key in upstream.tasks]
    prefixes = line.get("totals", {}).get("prefixes", upstream.task_prefixes)
    for name in [name for name in upstream.task_prefixes if name not in prefixes]:
        del upstream.task_prefixes[name]


# Differences that do not spread: they are taken out of the comparison


def stale_blame(after: After, known: Known) -> bool:
    """stale blame: upstream keeps `exception_blame` on tasks that were to err but were let go of before."""
    found = False
    for key in after.changed:
        ours, theirs = after.tasks[0].get(key), after.tasks[1].get(key)
        if ours and theirs and theirs["blame"] and theirs["state"] != "erred" and ours["blame"] is None:
            theirs["blame"] = None
            # What a later graph builds on the task would err for it.
            after.upstream.tasks[key].exception_blame = None
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


def blame_of_the_erred(after: After, known: Known) -> bool:
    """blame of the erred: a graph that names a task which is erred already makes upstream blame another of its erred
    inputs; here the one stands that it erred for."""
    if after.event["op"] != "update-graph":
        return False
    found = False
    for key in after.before.erred:
        ours, theirs = after.tasks[0].get(key), after.tasks[1].get(key)
        if not ours or not theirs or ours["blame"] == theirs["blame"] or not ours["state"] == theirs["state"] == "erred":
            continue
        ts = after.upstream.tasks[key]
        ts.exception_blame = after.upstream.tasks.get(ours["blame"], ts.exception_blame)
        theirs["blame"] = ours["blame"]
        told = f"{after.event['client']}|{key}"
        if told in after.sent[0] and told in after.sent[1]:
            after.sent[1][told] = after.sent[0][told]
        found = True
    return found


def lost_actors(after: After, known: Known) -> bool:
    """called off with its actor: upstream errs what reads an actor that is lost, but does not tell the worker that was to
    run it, which waits for the actor; here it is told."""
    ours, theirs = after.sent
    found = False
    for name in [name for name, messages in ours.items() if messages == [*theirs.get(name, []), ["free-keys"]]]:
        task = after.tasks[1].get(name.split("|", 1)[1])
        if task and task["state"] == "erred" and after.tasks[1].get(task["blame"], {}).get("actor"):
            theirs[name] = ours[name]
            found = True
    return found


def retired_in_vain(after: After, known: Known) -> bool:
    """retired in vain: a worker that was told to retire twice, and cannot, upstream tells to be what it was after the first
    time, and it never runs again; here it is to be what it was before."""
    if not after.upstream.extensions:
        return False
    found = False
    for name, messages in after.sent[1].items():
        ours = after.sent[0].get(name, [])
        for place, message in enumerate(messages[: len(ours)]):
            if message == ["worker-status-change", "closing_gracefully"] and ours[place][0] == message[0]:
                found |= ours[place] != message
                messages[place] = ours[place]
    return found


def restarted_one_by_one(after: After, known: Known) -> bool:
    """restarted one by one: a restart lets go of each client's keys on their own, and upstream fills the slots that this frees
    with tasks that it calls off a moment later; here they stay empty."""
    if after.event["op"] != "restart":
        return False
    ours, theirs = after.sent
    called_off = [
        name
        for name, messages in theirs.items()
        if name not in ours and [message[0] for message in messages] == ["compute-task", "free-keys"]
    ]
    for name in called_off:
        del theirs[name]
    # What is sent next goes round robin by it.
    after.upstream.n_tasks -= len(called_off)
    return bool(called_off)


MASKS = [
    stale_blame,
    repeated_reports,
    repeated_cancels,
    used_resources,
    blame_of_the_erred,
    lost_actors,
    retired_in_vain,
    restarted_one_by_one,
]
