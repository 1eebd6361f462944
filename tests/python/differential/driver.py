"""Follows scenarios with upstream's scheduler and compares after every step.

Reads the lines that ``dask_tests::differential`` writes (its documentation has the format) from standard input and
writes one line of JSON per scenario: how far it was followed, how many choices of workers were compared, and the first
difference that has no name in ``differences.py``.

    driver.py < scenarios.jsonl
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections import Counter

import dask

import canonical
import differences
import ordered
from upstream import Upstream, clock, module

# Transitions after an event; more than any scenario's tasks can come to.
TRANSITIONS_MAX = 20_000


class Scenario:
    def __init__(self, header: dict):
        self.number = header["scenario"]
        self.known = differences.Known()
        saturation = header["saturation"]
        with dask.config.set({"distributed.scheduler.worker-saturation": "inf" if saturation is None else saturation}):
            self.upstream = Upstream(header["allowed_failures"], self.known.counts, header["operations"])
            module.asyncio.sleep = self.upstream.sleepers.sleep
        self.tasks: dict[str, dict] = {}
        self.theirs: dict[str, dict] = {}
        ordered.touched.clear()
        self.workers: dict[str, dict] = {}
        self.totals: dict = {}
        self.steps = 0
        #: How often each kind of event was compared.
        self.events: Counter = Counter()
        self.difference: dict | None = None

    async def step(self, line: dict) -> bool:
        """Takes one step; false at the first difference."""
        upstream = self.upstream
        clock.now = line["at"]
        upstream.theirs = [tuple(placed) for placed in line["placed"]]
        upstream.placed, upstream.disagreements, upstream.failed = [], [], None
        upstream.in_flight_there = line.get("totals", self.totals).get("in_flight", [])
        upstream.retired = []
        upstream.transition_counter_max = upstream.transition_counter + TRANSITIONS_MAX
        if "amm" in upstream.extensions:
            upstream.extensions["amm"].told(line["sent"])
        upstream.refused = {key: task["erred_on"] for key, task in line["tasks"].items() if task["erred_on"]}
        before = differences.Before(upstream, line["event"])
        logged = len(upstream.transition_log)
        upstream.known_before = set(upstream.tasks)
        worker_streams, client_streams = dict(upstream.stream_comms), dict(upstream.client_comms)
        try:
            await upstream.handle(line["event"])
            raised = None
            differences.follow(upstream, line, self.known)
        except Exception as error:
            raised = error
        worker_streams |= upstream.stream_comms
        client_streams |= upstream.client_comms
        sent = canonical.sent(worker_streams, canonical.to_worker) | canonical.sent(client_streams, canonical.to_client)
        changed = self.follow(line) | self.look()
        made = [tuple(transition[:3]) for transition in list(upstream.transition_log)[logged:]]
        after = differences.After(
            line=line,
            upstream=upstream,
            before=before,
            raised=raised,
            made=made,
            changed=changed,
            tasks=(self.tasks, self.theirs),
            workers=(self.workers, {a: canonical.worker(upstream, ws) for a, ws in upstream.workers.items()}),
            totals=(self.totals, canonical.totals(upstream)),
            sent=(expand(line["sent"], client_streams), sent),
        )
        found = differences.find(after, self.known)
        if found:
            self.difference = {
                "step": self.steps,
                "event": line["event"],
                "found": found,
                "raised": repr(raised),
                "transitions here": [" ".join(transition) for transition in line["transitions"]],
                "transitions upstream": [" ".join(map(str, transition)) for transition in made],
            }
        self.steps += 1
        self.events[line["event"]["op"]] += 1
        return not found and not self.known.ended_by

    def look(self) -> set[str]:
        """Looks at upstream's tasks again, as far as they changed; which these are."""
        changed = set(ordered.touched)
        ordered.touched.clear()
        for key in changed:
            ts = self.upstream.tasks.get(key)
            if ts is not None:
                self.theirs[key] = canonical.task(ts)
            else:
                self.theirs.pop(key, None)
        return changed

    def follow(self, line: dict) -> set[str]:
        """Takes over what our state says; which tasks changed."""
        self.tasks |= line["tasks"]
        self.workers |= line["workers"]
        for key in line["gone"]:
            del self.tasks[key]
        for address in line["left"]:
            del self.workers[address]
        self.totals = line.get("totals", self.totals)
        return line["tasks"].keys() | set(line["gone"])

    def verdict(self) -> dict:
        choices = self.upstream.choices
        return {
            "scenario": self.number,
            "steps": self.steps,
            "determined": choices.determined,
            "tied": choices.tied,
            "noise": choices.noise,
            "order": choices.order,
            "events": self.events,
            "known": self.known.counts,
            "ended_by": self.known.ended_by,
            "difference": self.difference,
        }


def expand(sent: dict[str, list], clients) -> dict[str, list]:
    """Messages to all clients, as messages to each."""
    result = {receiver: list(messages) for receiver, messages in sent.items() if not receiver.startswith("*|")}
    for receiver, messages in sent.items():
        if receiver.startswith("*|"):
            for client in clients:
                result.setdefault(client + receiver[1:], []).extend(messages)
    return result


async def main() -> None:
    scenario: Scenario | None = None
    for text in sys.stdin:
        line = json.loads(text)
        if "scenario" in line:
            scenario, going = Scenario(line), True
        elif "end" in line:
            print(json.dumps(scenario.verdict()), flush=True)
            await scenario.upstream._ongoing_background_tasks.stop()
        elif going:
            going = await scenario.step(line)


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    asyncio.run(main())
