"""The Python side of the polyglot test: native tasks by name, and names shared with a Rust client."""

import sys

from dask_rs import native
from distributed import Client, Event, Queue, Variable


def halve(numbers):
    return [n / 2 for n in numbers]


def main(address):
    client = Client(address, timeout="30s")
    scale, total = native("polyglot_scale"), native("polyglot_total")

    # By name, with plain values, futures, and futures inside collections.
    scaled = client.submit(scale, [1.0, 2.0], 3.0)
    assert list(scaled.result()) == [3.0, 6.0], scaled.result()
    assert client.submit(total, scaled).result() == 9.0
    parts = [client.submit(total, [float(n)]) for n in range(4)]
    assert client.submit(total, parts).result() == 6.0
    assert client.submit(total, tuple(parts)).result() == 6.0
    greeted = client.map(native("polyglot_greet"), [["a"], ["b"]], ["hi", "ho"])
    assert [list(r) for r in client.gather(greeted)] == [["hi a"], ["ho b"]]

    # One graph of both.
    mixed = client.submit(total, client.submit(halve, scaled))
    assert mixed.result() == 4.5
    dsk = {"a": (halve, [2.0, 4.0]), "b": (scale, "a", 10.0), "c": (sum, "b")}
    assert client.get(dsk, "c") == 30.0

    # Errors name what was expected, found and registered.
    for call, words in [
        (lambda: client.submit(native("no_such"), 1), ["no_such", "polyglot_total"]),
        (lambda: client.submit(total, "text"), ["argument 0", "polyglot_total"]),
        (lambda: client.submit(total), ["takes 1 arguments, got 0"]),
        (lambda: client.submit(total, numbers=[1.0]), ["by position"]),
        (lambda: client.submit(total, object), ["argument 0"]),
    ]:
        error = call().exception()
        missing = [word for word in words if word not in str(error)]
        assert not missing, (missing, error)
    try:
        total([1.0])
    except RuntimeError as error:
        assert "polyglot_total" in str(error)
    else:
        raise AssertionError("a direct call has to say where it would run")

    # Names that a Rust client made, and some for it.
    assert Variable("from-rust").get(timeout=20) == 2.5
    (future,) = client.get_dataset("rust-data")
    assert list(future.result()) == [8.0, 16.0, 24.0]
    jobs = Queue("jobs")
    assert jobs.get(timeout=20) == "first job"
    jobs.put("answer")
    Variable("from-python").set(client.submit(halve, [1.0, 2.0]))
    client.publish_dataset(scaled, name="python-data")
    Event("python-was-here").set()
    client.close()


if __name__ == "__main__":
    main(sys.argv[1])
