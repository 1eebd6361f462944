"""What a user learns about a task that waits, and about one that can never run. Needs our scheduler."""

import warnings

import pytest
from distributed import wait


def inc(x):
    return x + 1


def explain(client, key):
    return client.sync(client.scheduler.explain, key=key)


def test_a_result_is_explained(client):
    future = client.submit(inc, 1, pure=False)
    wait(future, timeout=30)
    told = explain(client, future.key)
    assert told["state"] == "memory"
    assert told["reason"]["kind"] == "in-memory"
    assert told["placement"]["worker"] in client.has_what()
    assert told["text"].startswith(f"{future.key} has been in memory for")
    assert explain(client, "nobody")["state"] is None


def test_a_task_that_can_never_run_warns_at_once(client):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        future = client.submit(inc, 1, resources={"MOON": 1}, pure=False)
        with pytest.raises(TimeoutError):
            future.result(timeout=2)
    texts = [str(warning.message) for warning in caught]
    assert any(future.key in text and "MOON" in text for text in texts), texts
    told = explain(client, future.key)
    assert told["state"] == "no-worker"
    assert told["reason"]["hopeless"] is True
    assert told["reason"]["refusals"][0]["why"] == "offers 0 of the 1 MOON needed"
    future.cancel()
