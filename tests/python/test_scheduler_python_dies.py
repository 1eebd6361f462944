"""Python beside the scheduler ends, or hangs. Only for schedulers that have such: upstream's would end or hang itself."""

import os
import time

import pytest
from dask import delayed
from distributed import Client, SchedulerPlugin
from waiting import RESULT_TIMEOUT, eventually


def inc(x):
    return x + 1


class Counter(SchedulerPlugin):
    name = "counter"

    def __init__(self):
        self.added = 0

    def add_client(self, scheduler, client):
        self.added += 1


def test_a_function_that_ends_its_process_harms_nothing_else(client, address):
    client.register_plugin(Counter())
    running = client.map(inc, range(10), pure=False)
    with pytest.raises(RuntimeError, match="Python process beside the scheduler ended"):
        client.run_on_scheduler(os._exit, 3)
    assert client.gather(running) == list(range(1, 11))
    # Another process takes over, with the same plugins.
    assert client.run_on_scheduler(lambda dask_scheduler: "counter" in dask_scheduler.plugins) is True
    with Client(address):
        pass
    eventually(lambda: client.run_on_scheduler(lambda dask_scheduler: dask_scheduler.plugins["counter"].added) == 1)
    client.unregister_scheduler_plugin("counter")


class Slow:
    """Takes far longer to arrive than this test may take."""

    def __reduce__(self):
        return time.sleep, (10 * RESULT_TIMEOUT,)


def test_a_client_that_leaves_while_its_graph_is_made_is_forgotten(client, address):
    other = Client(address, set_as_default=False)
    graph = delayed(inc)(Slow(), pure=False)
    other.compute(graph)

    def clients():
        return client.run_on_scheduler(lambda dask_scheduler: list(dask_scheduler.clients))

    assert other.id in clients()
    other.close(timeout=1)
    eventually(lambda: other.id not in clients(), "the client's end")
    # Collections of others are made as before.
    assert delayed(inc)(1).compute() == 2
