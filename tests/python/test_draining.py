"""Workers that are told to go (SIGTERM) hand over what only they hold. Needs DASK_TEST_WORKER_BINARY."""

import collections
import signal

import pytest
from distributed import Client, wait
from own_workers import OwnWorker, alive, children
from waiting import RESULT_TIMEOUT, eventually

# What a shell says of a process that ended by SIGTERM.
ENDED_AT_ONCE = 128 + signal.SIGTERM


@pytest.fixture
def client(address):
    with Client(address, timeout="20s") as client:
        yield client


@pytest.fixture
def start(address, client, tmp_path):
    """Starts a worker; with it comes the address that it registers."""
    workers = []

    def start(*options):
        known = set(client.scheduler_info()["workers"])
        worker = OwnWorker(address, tmp_path / f"worker-{len(workers)}", *options)
        workers.append(worker)
        worker.wait_for("Registered to:")
        [registered] = set(client.scheduler_info()["workers"]) - known
        return worker, registered

    yield start
    for worker in workers:
        worker.kill()
    eventually(lambda: not client.scheduler_info()["workers"], "a cluster without workers")


def value(path, i):
    with open(path, "a") as runs:
        runs.write(f"{i}\n")
    return bytes([i]) * 100_000


def results_on(client, address, path, count=20):
    held = client.map(value, [str(path)] * count, range(count), workers=[address], pure=False, allow_other_workers=True)
    # Nothing else is computed: a worker counts what it holds, and holds what a client has let go of a moment ago.
    wait(held, timeout=RESULT_TIMEOUT)
    assert client.who_has(held) == {future.key: (address,) for future in held}
    return held


@pytest.mark.parametrize("options", [[], ["--no-nanny"]], ids=["under a nanny", "alone"])
def test_results_outlive_a_worker_that_is_told_to_go(client, start, tmp_path, options):
    leaving, address = start(*options)
    path = tmp_path / "runs"
    held = results_on(client, address, path)
    start()
    leaving.process.send_signal(signal.SIGTERM)
    assert leaving.ended() == 0
    assert leaving.says(f"Closing worker gracefully: {address}. Reason: signal-15")
    assert not leaving.says("without having handed over")
    assert [len(it) for it in client.gather(held)] == [100_000] * 20
    assert set(collections.Counter(path.read_text().splitlines()).values()) == {1}


def test_what_nobody_can_take_is_counted(client, start, tmp_path):
    leaving, address = start("--no-nanny")
    held = results_on(client, address, tmp_path / "runs")
    leaving.process.send_signal(signal.SIGTERM)
    assert leaving.ended() == 0
    leaving.wait_for("without having handed over 20 keys of which nobody else has a copy: no other worker can take it")
    del held


@pytest.fixture
def stuck(start, client, tmp_path):
    """A worker with results, and another one that does not take them: it is stopped."""

    def stuck(*options):
        leaving, address = start("--no-nanny", *options)
        held = results_on(client, address, tmp_path / "runs")
        other, _ = start("--no-nanny")
        other.process.send_signal(signal.SIGSTOP)
        return leaving, held

    return stuck


def test_the_grace_ends_the_wait(stuck):
    leaving, held = stuck("--drain-grace", "1s")
    leaving.process.send_signal(signal.SIGTERM)
    assert leaving.ended() == 0
    assert leaving.says("without having handed over 20 keys of which nobody else has a copy: not done in 1 s")
    del held


def test_a_second_signal_ends_it_at_once(stuck):
    leaving, held = stuck("--drain-grace", "1h")
    leaving.process.send_signal(signal.SIGTERM)
    leaving.wait_for("Closing worker gracefully")
    leaving.process.send_signal(signal.SIGTERM)
    assert leaving.ended() == ENDED_AT_ONCE
    del held


def test_a_second_signal_ends_the_worker_with_its_nanny(client, start, tmp_path):
    leaving, address = start("--drain-grace", "1h")
    held = results_on(client, address, tmp_path / "runs")
    other, _ = start("--no-nanny")
    other.process.send_signal(signal.SIGSTOP)
    [worker] = children(leaving.process.pid)
    leaving.process.send_signal(signal.SIGTERM)
    leaving.wait_for("Closing worker gracefully")
    leaving.process.send_signal(signal.SIGTERM)
    assert leaving.ended() == ENDED_AT_ONCE
    eventually(lambda: not alive(worker), "the end of the worker")
    del held


@pytest.mark.parametrize("options, number", [(["--drain-grace", "0s"], signal.SIGTERM), ([], signal.SIGINT)])
def test_without_a_grace_and_from_a_terminal_it_ends_as_upstreams(client, start, tmp_path, options, number):
    leaving, address = start("--no-nanny", *options)
    held = results_on(client, address, tmp_path / "runs")
    start()
    leaving.process.send_signal(number)
    assert leaving.ended() == 0
    assert not leaving.says("gracefully")
    assert [len(it) for it in client.gather(held)] == [100_000] * 20


def test_a_worker_whose_lifetime_is_over_hands_over_too(client, start, tmp_path):
    start()
    leaving, address = start("--lifetime", "6s")
    path = tmp_path / "runs"
    held = results_on(client, address, path)
    assert leaving.ended() == 0
    assert [len(it) for it in client.gather(held)] == [100_000] * 20
    assert set(collections.Counter(path.read_text().splitlines()).values()) == {1}
