"""What a case tells the harness."""

import contextlib
import json
import statistics
import sys
import time


class Harness:
    def __init__(self, address, workers):
        self.address, self.workers = address, workers

    @contextlib.contextmanager
    def measured(self, tasks):
        """What is measured, once in a case: `tasks` of them, none for what has no tasks. Yields what holds its `seconds` then."""
        section = Section()
        self._ask(at="begin")
        begin = time.perf_counter()
        yield section
        section.seconds = time.perf_counter() - begin
        self._ask(at="end", seconds=section.seconds, tasks=tasks)

    def look(self, name):
        """What the scheduler's memory has grown by since the beginning, by task."""
        self._ask(at="look", name=name)

    def figure(self, name, value):
        """Less is better, but where the name ends in "/s"."""
        self._tell(at="figure", name=name, value=value)

    def percentiles(self, name, seconds):
        """Of times, in milliseconds."""
        seconds = sorted(seconds)
        self.figure(f"{name} p50, ms", 1e3 * statistics.median(seconds))
        for percent in (90, 99):
            self.figure(f"{name} p{percent}, ms", 1e3 * seconds[(len(seconds) - 1) * percent // 100])
        self.figure(f"{name} longest, ms", 1e3 * seconds[-1])

    def _tell(self, **what):
        print("@" + json.dumps(what), flush=True)

    def _ask(self, **what):
        self._tell(**what)
        if not sys.stdin.readline():
            sys.exit("the harness is gone")


class Section:
    seconds = 0.0
