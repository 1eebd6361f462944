"""What the error of a task tells of the workers that died with it. Of our workers and nannies only."""

import os
import signal
from urllib.parse import quote
from urllib.request import urlopen

import pytest
from distributed.scheduler import KilledWorker
from waiting import RESULT_TIMEOUT, eventually


def end_own_process():
    os._exit(9)


def kill_worker():
    """Ends the worker above the Python process, as the kernel does when memory runs out."""
    os.kill(os.getppid(), signal.SIGKILL)


def notes_of(client, task):
    future = client.submit(task, pure=False)
    with pytest.raises(KilledWorker) as caught:
        future.result(timeout=2 * RESULT_TIMEOUT)
    error = caught.value
    assert future.key in str(error) and "post" not in str(error), "the text is as upstream's"
    return future, "\n".join(error.__notes__)


def test_the_exit_status_what_was_executing_the_memory_and_the_last_log_lines(client):
    future, notes = notes_of(client, end_own_process)
    assert notes.count("lost its Python process, which ended with exit status: 9") == 4
    assert notes.count(f"it was executing {future.key}") == 4
    assert "memory: " in notes and "its last log lines:" in notes and "Registered to" in notes


def test_the_signal_as_the_nanny_saw_it(client):
    future, notes = notes_of(client, kill_worker)
    # There are two workers at a time: the last two may have died faster than their nannies tell.
    assert notes.count("was killed by signal 9") >= 2
    assert future.key in notes

    def deaths():
        return client.sync(client.scheduler.explain, key=future.key)["deaths"]

    assert len(deaths()) == 4
    eventually(lambda: all("was killed by signal 9" in str(death) for death in deaths()), "what the nannies tell of each")
    worker = deaths()[-1]["worker"]
    port = client.scheduler_info()["services"]["dashboard"]

    def page():
        with urlopen(f"http://127.0.0.1:{port}/info/worker/{quote(worker, safe='')}.html") as answer:
            return answer.read().decode()

    eventually(lambda: "was killed by signal 9" in page(), "the nanny's report on the page of the dead worker")
    assert worker in {event["worker"] for _, event in client.get_events("worker-post-mortem")}
