"""What clients do in `test_chaos.py`: each operation asks for something, checks what comes, and leaves nothing behind.

Workers are killed all the while. So an answer is the right one, or one of the errors that a lost worker explains; never
silence.
"""

import operator
import time
from concurrent.futures import CancelledError

import dask
import dask.array as da
import dask.bag as db
from distributed import Event, Future, Lock, Queue, Semaphore, Variable, as_completed, wait, worker_client
from distributed.exceptions import Reschedule
from distributed.scheduler import KilledWorker

# An answer later than this is counted as none.
ANSWER_SECONDS_MAX = 90
# What is held in other tasks' way is held for less than this.
HOLD_SECONDS_MAX = 0.02
# How often at most one of many waits for something that others hold, in seconds.
SHORT_WAIT = "5s"

# What a lost worker may make of a result: what scattered data became, or a task that was tried too often.
LOST = (KilledWorker, CancelledError)


def inc(x, seconds=0.0):
    time.sleep(seconds)
    return x + 1


def add(*numbers):
    return sum(numbers)


def fail(x):
    raise ValueError(f"bad {x}")


def reschedule_once(x):
    if time.time() % 1 < 0.2:
        raise Reschedule
    return x


def inc_within(x):
    """Submits from inside a task."""
    with worker_client() as client:
        return client.submit(inc, x, pure=False).result()


def hold(name, x):
    with Lock(name):
        time.sleep(HOLD_SECONDS_MAX)
    return x


def wait_for(name):
    return Event(name).wait(timeout=ANSWER_SECONDS_MAX)


def spin():
    while True:
        pass


class Counter:
    """An actor."""

    def __init__(self):
        self.count = 0

    def increment(self, by):
        self.count += by
        return self.count


class User:
    """One client, its source of chance, and the names it shares with all others."""

    def __init__(self, client, number, rng):
        self.client, self.number, self.rng = client, number, rng
        self.serial = 0

    def name(self, what):
        """A name that nobody else uses."""
        self.serial += 1
        return f"{what}-{self.number}-{self.serial}"

    def result(self, future):
        """The result of a future, or None when a lost worker explains its absence."""
        try:
            return future.result(timeout=ANSWER_SECONDS_MAX)
        except LOST:
            return None

    def check(self, future, expected):
        result = self.result(future)
        assert result is None or result == expected, (future.key, result, expected)


def chain(user):
    x = user.rng.randrange(100)
    futures = [user.client.submit(inc, x, user.rng.random() / 100, pure=False)]
    for _ in range(user.rng.randrange(1, 5)):
        futures.append(user.client.submit(inc, futures[-1], pure=False))
    user.check(futures[-1], x + len(futures))


def fan(user):
    n = user.rng.randrange(1, 40)
    futures = user.client.map(inc, range(n), seconds=user.rng.random() / 200, pure=False)
    user.check(user.client.submit(add, *futures, pure=False), n * (n + 1) // 2)


def shared_keys(user):
    """Several clients ask for the same keys, and let go of them at different times."""
    start = user.rng.randrange(3)
    futures = user.client.map(inc, range(start, start + 10), pure=True)
    total = user.client.submit(add, *futures, pure=True)
    user.check(total, sum(range(start + 1, start + 11)))


def scattered(user):
    numbers = [user.rng.randrange(1000) for _ in range(5)]
    futures = user.client.scatter(numbers, broadcast=user.rng.random() < 0.3, hash=False, timeout=ANSWER_SECONDS_MAX)
    user.check(user.client.submit(add, *futures, pure=False), sum(numbers))


def gathered(user):
    futures = user.client.map(inc, range(20), pure=False)
    try:
        assert user.client.gather(futures) == list(range(1, 21))
    except LOST:
        pass


def cancelled(user):
    futures = user.client.map(inc, range(20), seconds=0.01, pure=False)
    some = user.rng.sample(futures, 10)
    user.client.cancel(some, force=user.rng.random() < 0.5)
    for future in futures:
        user.result(future)


def released(user):
    futures = user.client.map(inc, range(30), seconds=0.005, pure=False)
    last = futures[-1]
    del futures
    user.check(last, 30)


def one_by_one(user):
    futures = user.client.map(inc, range(10), seconds=0.002, pure=False)
    seen = sum(1 for _ in as_completed(futures, timeout=ANSWER_SECONDS_MAX))
    assert seen == 10


def failing(user):
    bad = user.client.submit(fail, 1, pure=False, retries=user.rng.randrange(2))
    after = user.client.submit(inc, bad, pure=False)
    try:
        after.result(timeout=ANSWER_SECONDS_MAX)
    except ValueError as error:
        assert str(error) == "bad 1"
    except LOST:
        pass
    else:
        raise AssertionError("an error vanished")
    if user.rng.random() < 0.5:
        after.retry()
        wait(after, timeout=ANSWER_SECONDS_MAX)


def rescheduled(user):
    futures = user.client.map(reschedule_once, range(5), pure=False)
    for number, future in enumerate(futures):
        user.check(future, number)


def nested(user):
    user.check(user.client.submit(inc_within, 1, pure=False), 2)


def variable(user):
    shared = Variable(user.name("variable"), client=user.client)
    future = user.client.submit(inc, 1, pure=False)
    shared.set(future)
    wait(future, timeout=ANSWER_SECONDS_MAX)
    again = shared.get(timeout=ANSWER_SECONDS_MAX)
    if isinstance(again, Future):
        user.check(again, 2)
    shared.delete()


def queue(user):
    """Users put into one queue and take from it, never knowing whose it was."""
    shared = Queue("everybody", client=user.client)
    shared.put(user.client.submit(inc, 1, pure=False), timeout=SHORT_WAIT)
    taken = shared.get(timeout=ANSWER_SECONDS_MAX)
    if isinstance(taken, Future):
        user.check(taken, 2)


def lock(user):
    futures = [user.client.submit(hold, "everybody", x, pure=False) for x in range(2)]
    for x, future in enumerate(futures):
        user.check(future, x)


def event(user):
    name = user.name("event")
    future = user.client.submit(wait_for, name, pure=False)
    Event(name, client=user.client).set()
    user.check(future, True)
    Event(name, client=user.client).clear()


def semaphore(user):
    shared = Semaphore(max_leases=2, name="two at a time")
    if shared.acquire(timeout=SHORT_WAIT):
        time.sleep(HOLD_SECONDS_MAX)
        shared.release()


def published(user):
    name = user.name("dataset")
    user.client.publish_dataset(user.client.submit(inc, 4, pure=False), name=name)
    user.check(user.client.get_dataset(name), 5)
    user.client.unpublish_dataset(name)


def actor(user):
    """An actor's state dies with its worker; so all errors of a lost one are fair, but there must be an end."""
    future = user.client.submit(Counter, actor=True, pure=False)
    try:
        counter = future.result(timeout=ANSWER_SECONDS_MAX)
        counts = [counter.increment(1).result(timeout=ANSWER_SECONDS_MAX) for _ in range(3)]
        assert counts == [1, 2, 3]
    except TimeoutError:
        raise
    except (*LOST, RuntimeError, OSError, ValueError, KeyError):
        # Gone, by one of the names that upstream's client has for it.
        pass


def replicated(user):
    futures = user.client.map(inc, range(5), pure=False)
    wait(futures, timeout=ANSWER_SECONDS_MAX)
    user.client.replicate(futures, n=2)
    holders = user.client.who_has(futures)
    assert set(holders) == {future.key for future in futures}
    user.client.has_what()


def array(user):
    n = user.rng.randrange(10, 200)
    user.check(user.client.compute(da.arange(n, chunks=10).sum()), n * (n - 1) // 2)


def bag(user):
    user.check(user.client.compute(db.from_sequence(range(20), npartitions=4).map(inc).sum()), 210)


def delayed(user):
    parts = [dask.delayed(inc)(x) for x in range(8)]
    user.check(user.client.compute(dask.delayed(operator.add)(parts[0], dask.delayed(add)(*parts))), 37)


def persisted(user):
    kept = user.client.persist(da.ones(100, chunks=10))
    user.check(user.client.compute(kept.sum()), 100)


def overdue(user):
    """An endless loop that ends at its timeout, or a wait for which its Python process is replaced."""
    with dask.annotate(timeout=0.3):
        if user.rng.random() < 0.7:
            future = user.client.submit(spin, pure=False)
        else:
            future = user.client.submit(time.sleep, 3600, pure=False)
    try:
        future.result(timeout=ANSWER_SECONDS_MAX)
    except TimeoutError as error:
        assert future.key in str(error), "no answer at all"
    except LOST:
        pass
    else:
        raise AssertionError("an endless task ended")


def abandoned(user):
    """A running task that is cancelled."""
    future = user.client.submit(spin, pure=False)
    time.sleep(HOLD_SECONDS_MAX)
    future.cancel()


OPERATIONS = [
    overdue,
    abandoned,
    chain,
    fan,
    shared_keys,
    scattered,
    gathered,
    cancelled,
    released,
    one_by_one,
    failing,
    rescheduled,
    nested,
    variable,
    queue,
    lock,
    event,
    semaphore,
    published,
    actor,
    replicated,
    array,
    bag,
    delayed,
    persisted,
]
