"""What the scheduler's graph helper does between requests."""

import gc
import pathlib
import sys
import types
import weakref

import pytest

PROGRAM = pathlib.Path(__file__).parents[2] / "scheduler" / "python" / "materialize.py"


class Cycle:
    def __init__(self):
        self.itself = self


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    return now


@pytest.fixture
def leftovers(clock):
    names = {"__name__": "graph_helper"}
    exec(compile(PROGRAM.read_text(), str(PROGRAM), "exec"), names)
    # As a process has them that has done nothing else; this one's own objects are looked at again afterwards.
    yield names["Leftovers"]()
    gc.unfreeze()


def a_request(make=Cycle):
    """Makes something while nothing is collected; whether it is there still."""
    gc.disable()
    made = weakref.ref(make())
    gc.enable()
    assert made() is not None
    return made


def test_what_a_request_leaves_in_cycles_is_collected_before_the_next(leftovers):
    for _ in range(3):
        made = a_request()
        leftovers.collect()
        assert made() is None


def test_what_is_imported_is_not_looked_at_again(leftovers, monkeypatch):
    leftovers.collect()
    frozen = gc.get_freeze_count()
    many = types.ModuleType("many_objects")
    many.objects = [[n] for n in range(10_000)]
    monkeypatch.setitem(sys.modules, many.__name__, many)
    leftovers.collect()
    assert gc.get_freeze_count() > frozen + 9_000
    made = a_request()
    leftovers.collect()
    assert made() is None


def test_what_outlived_a_request_is_collected_in_the_end(leftovers, clock):
    leftovers._next = 5.0
    kept = Cycle()
    made = weakref.ref(kept)
    leftovers.collect()
    del kept
    leftovers.collect()
    assert made() is not None, "not everything is looked at each time"
    clock[0] = 5.0
    leftovers.collect()
    assert made() is None
