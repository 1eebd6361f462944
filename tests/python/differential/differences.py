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
    tasks: tuple[dict, dict]
    workers: tuple[dict, dict]
    totals: tuple[dict, dict]
    sent: tuple[dict, dict]

    @property
    def event(self) -> dict:
        return self.line["event"]


def find(after: After, known: Known) -> list[str]:
    """What differs and has no name."""
    for ends in ENDS:
        if ends(after):
            known.end(ends.__doc__.split(":")[0])
            return []
    for mask in MASKS:
        if mask(after, known):
            known.counts[mask.__doc__.split(":")[0]] += 1
    found = list(after.upstream.disagreements)
    for error in (after.raised, after.upstream.failed):
        if error is not None:
            found.append(f"upstream raised {error!r}")
    for what in ("tasks", "workers", "sent"):
        ours, theirs = getattr(after, what)
        for name in sorted(ours.keys() | theirs.keys()):
            if ours.get(name) != theirs.get(name):
                found += compare(f"{what} {name}", ours.get(name), theirs.get(name))
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
    """loose resources: upstream sends a loose task to a worker that lacks the resource, and fails to book it; here the
    task waits for one that has it."""
    error = after.raised or after.upstream.failed
    return isinstance(error, KeyError) and error.args[0] in ("GPU", "FPGA")


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


ENDS = [cancel_of_the_unwanted, loose_resources, loose_without_workers]

# Differences that do not spread: they are taken out of the comparison


def stale_blame(after: After, known: Known) -> bool:
    """stale blame: upstream keeps `exception_blame` on tasks that were to err but were let go of before."""
    found = False
    for key, theirs in after.tasks[1].items():
        ours = after.tasks[0].get(key)
        if ours and theirs["blame"] and theirs["state"] != "erred" and ours["blame"] is None:
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
