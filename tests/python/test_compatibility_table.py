"""docs/compatibility.md names every operation of upstream's scheduler, worker and nanny, and what it says is so."""

import pathlib
import re

import pytest
from distributed import Nanny, Scheduler, Worker
from distributed.core import connect

ROOT = pathlib.Path(__file__).parents[2]
TABLE = ROOT / "docs" / "compatibility.md"

# Answered by closing, restarting or measuring something, or by a stream.
NOT_CALLED = {
    "benchmark_hardware",
    "feed",
    "register-client",
    "register-worker",
    "register_nanny",
    "restart",
    "restart_workers",
    "retire_workers",
    "subscribe_worker_status",
    "terminate",
}


def rows(title):
    """(operations, how they are served, tests) of each row of one table."""
    text = TABLE.read_text()
    _, found, rest = text.partition(f"### {title}\n")
    assert found, f"no table {title!r}"
    table = rest.partition("\n### ")[0].partition("\n## ")[0]
    cells = [line.strip("|").split("|") for line in table.splitlines() if line.startswith("| `")]
    return [(re.findall(r"`([^`]+)`", ops), how.strip(), re.findall(r"`([^`]+)`", seen)) for ops, how, seen in cells]


def operations(title):
    named = [op for ops, _, _ in rows(title) for op in ops]
    assert len(named) == len(set(named)), f"{title}: named twice"
    return set(named)


async def upstreams():
    async with Scheduler(dashboard_address=":0", port=0, host="127.0.0.1") as scheduler:
        async with Worker(scheduler.address) as worker:
            nanny = Nanny(scheduler.address, nthreads=1)
            return [
                set(scheduler.handlers),
                set(scheduler.stream_handlers),
                set(worker.handlers),
                set(worker.stream_handlers),
                set(nanny.handlers),
            ]


TITLES = ["Scheduler: calls", "Scheduler: streams", "Worker: calls", "Worker: stream", "Nanny: calls"]


def test_every_operation_of_upstream_is_in_the_table(client):
    for title, expected in zip(TITLES, client.sync(upstreams)):
        assert expected == operations(title), title


def test_the_tests_that_the_table_names_exist():
    known = set()
    for path in [*ROOT.glob("tests/python/*.py"), *ROOT.glob("*/tests/**/*.rs"), *ROOT.glob("*/src/**/*.rs")]:
        known.update(re.findall(r"\b(?:def|fn) (\w+)\(", path.read_text()))
    named = {test for title in TITLES for _, _, tests in rows(title) for test in tests}
    # The table of what clients do names tests in its second column.
    clients = TABLE.read_text().partition("\n## What clients do\n")[2].partition("\n## ")[0]
    done = [re.findall(r"`(test_\w+)`", line) for line in clients.splitlines()[4:] if line]
    assert len(done) > 10 and all(done), "a row names no test"
    named.update(test for tests in done for test in tests)
    assert named and named <= known, named - known
    without = [ops for title in TITLES for ops, how, tests in rows(title) if not tests]
    assert not without, f"shown by no test: {without}"


@pytest.mark.parametrize("title", ["Scheduler: calls", "Worker: calls"])
def test_operations_answer_as_the_table_says(client, address, title):
    worker = sorted(client.scheduler_info(n_workers=-1)["workers"])[0]

    async def texts():
        comm = await connect(address if title.startswith("Scheduler") else worker)
        answers = {}
        try:
            for ops, how, _ in rows(title):
                for op in ops:
                    if op in NOT_CALLED or op in ("get_data", "gather", "benchmark_disk", "benchmark_memory"):
                        continue
                    if op in ("event_wait", "variable_get", "queue_get"):
                        continue
                    # Without arguments: most complain of those, some answer.
                    await comm.write({"op": op, "reply": True})
                    answers[op] = how, str(await comm.read())
            return answers
        finally:
            await comm.close()

    for op, (how, answer) in client.sync(texts).items():
        refused = re.search(r'refused: "([^"]+)"', how)
        if refused:
            assert refused[1] in answer, op
        else:
            assert "does not know" not in answer and "has no handler" not in answer, op
            assert "NotImplementedError" not in answer, (op, answer[:300])
