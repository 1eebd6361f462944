#!/usr/bin/env python3
"""The client's side of `dask-bench`: runs one case on a cluster that stands, and tells of it on standard output.

    python drive.py CASE ADDRESS WORKERS

CASE is a family and its parameters, such as `merge-10000` or `groupby-360-1s-8H`. Each line that starts with `@` is one JSON
object for the harness; where the harness has to look at the processes then, this program waits for a line on standard input.
"""

import sys

from distributed import Client

import collections_of_tasks
import data
import idle
import intake
import many
import trips
from harness import Harness


def noop(number):
    return number


def noop_of_main(client, harness, count):
    """Trivial calls of a function of `__main__`, which travels by value."""
    many.map_of(client, harness, noop, int(count))


FAMILIES = {
    "noop": noop_of_main,
    **many.FAMILIES,
    **collections_of_tasks.FAMILIES,
    **trips.FAMILIES,
    **data.FAMILIES,
    **intake.FAMILIES,
    **idle.FAMILIES,
}


def main():
    case, address, workers = sys.argv[1:]
    family, *parameters = case.split("-")
    if family not in FAMILIES:
        sys.exit(f"no family of cases {family!r}; there are {', '.join(sorted(FAMILIES))}")
    harness = Harness(address, int(workers))
    with Client(address, timeout=60) as client:
        client.wait_for_workers(int(workers), timeout=300)
        FAMILIES[family](client, harness, *parameters)


if __name__ == "__main__":
    main()
