"""What programs use to talk to each other through the scheduler: queues, locks, topics, metadata, logs."""

import logging
import threading
import time
import warnings

import pytest
from distributed import (
    Client,
    Event,
    Lock,
    MultiLock,
    Queue,
    Semaphore,
    Variable,
    get_client,
    get_worker,
    print as dask_print,
    wait,
    warn as dask_warn,
)
from waiting import RESULT_TIMEOUT, eventually


def inc(x):
    return x + 1


def test_versions_are_checked(client):
    versions = client.get_versions(check=True)
    assert set(versions) == {"scheduler", "workers", "client"}
    assert versions["scheduler"]["packages"]["distributed"] == versions["client"]["packages"]["distributed"]
    with_more = client.get_versions(check=False, packages=["pytest"])
    assert with_more["scheduler"]["packages"]["pytest"] == pytest.__version__


def test_metadata_of_clients(client, address):
    client.set_metadata(["experiment", "x"], {"a": [1, 2]})
    client.set_metadata("flat", 5)
    with Client(address) as other:
        assert other.get_metadata(["experiment", "x"]) == {"a": (1, 2)} or other.get_metadata(["experiment", "x"]) == {
            "a": [1, 2]
        }
        assert other.get_metadata("flat") == 5
        assert other.get_metadata(["experiment", "y"], default=None) is None
        with pytest.raises(KeyError):
            other.get_metadata(["no", "such"])


def test_topics_reach_every_subscriber(client, address):
    seen, other_seen = [], []
    client.subscribe_topic("test-topic", seen.append)
    with Client(address) as other:
        other.subscribe_topic("test-topic", other_seen.append)
        eventually(lambda: (other.log_event("test-topic", "ping"), time.sleep(0.1), seen and other_seen)[-1])
        client.unsubscribe_topic("test-topic")
        count = len(seen)
        assert client.submit(lambda: get_worker().log_event("test-topic", {"from": "task"}), pure=False).result() is None
        eventually(lambda: any(isinstance(msg, dict) for _, msg in other_seen), "the task's event")
        assert not any(isinstance(msg, dict) for _, msg in seen[count:])
    (stamp, message) = seen[0]
    assert abs(time.time() - stamp) < 60 and message == "ping"
    assert any(msg == "ping" for _, msg in client.get_events("test-topic"))


def test_print_and_warn_of_tasks_reach_the_client(client, capsys):
    def say(x):
        dask_print("task says", x, sep="-", end="!\n")
        return x

    def complain():
        dask_warn("beware of tasks", RuntimeWarning)

    assert client.submit(say, 7, pure=False).result(timeout=RESULT_TIMEOUT) == 7
    said = []

    def has_printed():
        said.append(capsys.readouterr().out)
        return "task says-7!\n" in "".join(said)

    eventually(has_printed, "the print")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        client.submit(complain, pure=False).result(timeout=RESULT_TIMEOUT)
        eventually(lambda: any("beware of tasks" in str(w.message) for w in caught), "the warning")
        assert any(issubclass(w.category, RuntimeWarning) for w in caught if "beware" in str(w.message))


def test_logs_of_workers_are_forwarded(client):
    records = []

    class Keep(logging.Handler):
        def emit(self, record):
            records.append(record)

    handler = Keep()
    logger = logging.getLogger("forwarded.test")
    logger.addHandler(handler)
    try:
        client.forward_logging("forwarded.test", level=logging.WARNING)

        def log():
            logging.getLogger("forwarded.test").error("from a task: %d", 3)

        client.submit(log, pure=False).result(timeout=RESULT_TIMEOUT)
        eventually(lambda: any(record.getMessage() == "from a task: 3" for record in records), "the log record")
        record = next(record for record in records if record.getMessage() == "from a task: 3")
        assert record.levelname == "ERROR" and record.worker.startswith("tcp://")
        client.unforward_logging("forwarded.test")
    finally:
        logger.removeHandler(handler)


def test_the_scheduler_keeps_its_own_logs(client):
    client.submit(inc, 1, pure=False).result(timeout=RESULT_TIMEOUT)
    lines = client.get_scheduler_logs(n=1000)
    assert all(len(row) == 2 for row in lines)


def test_an_executor_of_concurrent_futures(client):
    with client.get_executor(retries=1, pure=False) as executor:
        assert executor.submit(inc, 1).result(timeout=RESULT_TIMEOUT) == 2
        assert list(executor.map(inc, range(5))) == [1, 2, 3, 4, 5]


def test_the_current_client(client, address):
    with Client(address, set_as_default=False) as other:
        with other.as_current():
            assert get_client() is other
            assert Client.current() is other
        assert get_client() is not other


def test_multi_locks_exclude_each_other(client):
    first = MultiLock(["a", "b"], client=client)
    second = MultiLock(["b", "c"], client=client)
    assert first.acquire(timeout=5)
    assert second.acquire(timeout=0.2) is False
    first.release()
    assert second.acquire(timeout=5)
    second.release()
    with MultiLock(["a", "c"], client=client):
        pass


def test_locks_and_events(client):
    lock = Lock("test-lock")
    assert lock.acquire(timeout=5)
    assert lock.locked()
    assert Lock("test-lock").acquire(timeout=0.1) is False
    lock.release()
    event = Event("test-event")
    assert event.wait(timeout=0.1) is False

    def set_event():
        Event("test-event").set()

    # Without somebody who wants it the task may be cancelled before it is done.
    setting = client.submit(set_event, pure=False)
    assert event.wait(timeout=RESULT_TIMEOUT)
    setting.result(timeout=RESULT_TIMEOUT)
    event.clear()
    assert not event.is_set()


def test_a_semaphore_limits_who_works(client, n_workers):
    semaphore = Semaphore(max_leases=1, name="test-semaphore")

    def work(x, semaphore):
        with semaphore:
            assert semaphore.get_value() == 1
            time.sleep(0.02)
            return x

    assert client.gather(client.map(work, range(8), semaphore=semaphore, pure=False)) == list(range(8))
    eventually(lambda: semaphore.get_value() == 0, "the last release")
    assert semaphore.acquire(timeout=1)
    assert semaphore.acquire(timeout=0.1) is False
    assert semaphore.release()
    semaphore.close()


def test_a_queue_hands_values_and_futures_on(client, address):
    queue = Queue("test-queue")
    queue.put(1)
    queue.put({"x": [1]})
    queue.put(client.submit(inc, 10))
    assert queue.qsize() == 3
    with Client(address) as other:
        theirs = Queue("test-queue", client=other)
        assert theirs.get() == 1
        theirs.get()
        assert theirs.get().result(timeout=RESULT_TIMEOUT) == 11
    with pytest.raises(TimeoutError):
        queue.get(timeout=0.1)
    assert queue.get(batch=True) in ([], ())


def test_a_batch_may_be_larger_than_the_queue(client):
    queue = Queue("small-queue", maxsize=2)
    with pytest.raises(TimeoutError):
        for i in range(3):
            queue.put(i, timeout="200 ms")
    for _ in range(2):
        queue.get()

    def fill():
        for i in range(5):
            queue.put(i)

    filler = threading.Thread(target=fill)
    filler.start()
    got = queue.get(batch=5)
    filler.join(timeout=RESULT_TIMEOUT)
    assert list(got) == [0, 1, 2, 3, 4]
    assert queue.qsize() == 0


def test_variables(client, address):
    variable = Variable("test-variable")
    with pytest.raises(TimeoutError):
        variable.get(timeout=0.1)
    variable.set(client.submit(inc, 1))
    with Client(address) as other:
        assert Variable("test-variable", client=other).get().result(timeout=RESULT_TIMEOUT) == 2
    variable.set([1, 2])
    assert list(variable.get()) == [1, 2]
    variable.delete()


def test_published_datasets(client, address):
    client.publish_dataset(numbers=client.map(inc, range(3)), note="text")
    with Client(address) as other:
        assert set(other.list_datasets()) >= {"numbers", "note"}
        assert other.gather(other.get_dataset("numbers")) == [1, 2, 3]
        assert other.get_dataset("note") == "text"
        with pytest.raises(KeyError):
            client.publish_dataset(1, name="note")
    for name in ("numbers", "note"):
        client.unpublish_dataset(name)
    with pytest.raises(KeyError):
        client.get_dataset("numbers")


def test_workers_are_restricted_after_submission(client):
    first, *_ = sorted(client.scheduler_info(n_workers=-1)["workers"])
    blocker = Event("restriction-blocker")
    waiting = client.submit(lambda: Event("restriction-blocker").wait(), key="restriction-wait")
    later = client.submit(lambda _: get_worker().address, waiting, key="restricted-later")
    eventually(lambda: client.sync(client.scheduler.get_task_status, keys=["restricted-later"])["restricted-later"])
    client.sync(client.scheduler.set_restrictions, worker={"restricted-later": [first]})
    blocker.set()
    assert later.result(timeout=RESULT_TIMEOUT) == first
    blocker.clear()
    with pytest.raises(KeyError):
        client.sync(client.scheduler.set_restrictions, worker={"no-such-task": [first]})


def test_a_scattered_value_is_wanted_until_released(client):
    future = client.scatter({"value": [1, 2, 3]})["value"]
    assert client.submit(sum, future).result(timeout=RESULT_TIMEOUT) == 6
    wait(future)
    assert client.nbytes(summary=False)[future.key] > 0
