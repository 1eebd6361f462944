"""One task at a time, from submit to result."""

import time

import functions

WARM_UP = 20


def trips(client, harness, count, pause):
    seconds = []
    for number in range(WARM_UP):
        client.submit(functions.increment, number, pure=False).result()
    with harness.measured(count):
        for number in range(count):
            time.sleep(pause)
            begin = time.perf_counter()
            client.submit(functions.increment, number, pure=False).result()
            seconds.append(time.perf_counter() - begin)
    harness.percentiles("round trip", seconds)


def paced(client, harness, count):
    """With 30 ms between, longer than the client's own timer for sending."""
    trips(client, harness, int(count), 0.03)


def tight(client, harness, count):
    """Each as soon as the one before is back: the client's timer of 10 ms decides."""
    trips(client, harness, int(count), 0)


FAMILIES = {"trip_paced": paced, "trip_tight": tight}
