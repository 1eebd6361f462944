"""Waiting for what a cluster brings about by itself."""

import time

RESULT_TIMEOUT = 60


def eventually(condition, what="the condition"):
    deadline = time.monotonic() + RESULT_TIMEOUT
    while not condition():
        assert time.monotonic() < deadline, f"{what() if callable(what) else what} never came true"
        time.sleep(0.02)
