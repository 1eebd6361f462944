"""Nothing to do."""

import time


def idle(_client, harness, seconds):
    """For SECONDS; the client only holds its connection."""
    time.sleep(3)
    with harness.measured(0):
        time.sleep(float(seconds))


FAMILIES = {"idle": idle}
