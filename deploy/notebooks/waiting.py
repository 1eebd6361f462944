"""Waiting for what comes true by itself."""

import time

DEADLINE = 180


def eventually(condition, what):
    """Returns once a condition holds, and fails if it does not in time."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, f"{what} never came true"
        time.sleep(0.2)
