"""Clusters that tests make for themselves: those that are processes become the suite's, the others are noticed.

`distributed.utils_test.cluster`, behind the fixtures `c` and `client`, starts two workers and gives their addresses, which
the suite's cluster does as well. Tests that ask for a `Scheduler` object in their own process (`gen_cluster`,
`LocalCluster(processes=False)`) say nothing about another implementation.
"""

import contextlib
import functools

import distributed


class OwnClusters:
    """Stands in front of `cluster` and `Scheduler`; `made` says whether the test under way has made its own."""

    def __init__(self, processes):
        from distributed import utils_test  # only now: dask's conftest wants to be before what this imports

        self.processes = processes
        self.made = False
        self.cluster = utils_test.cluster
        utils_test.cluster = self._cluster
        init = distributed.Scheduler.__init__

        @functools.wraps(init)
        def notice(scheduler, *args, **kwargs):
            self.made = True
            init(scheduler, *args, **kwargs)

        distributed.Scheduler.__init__ = notice

    @contextlib.contextmanager
    def _cluster(self, **kwargs):
        kwargs.pop("should_check_state", None)
        if kwargs:
            self.made = True
            with self.cluster(**kwargs) as made:
                yield made
            return
        client = self.processes().client
        workers = [{"address": address} for address in client.scheduler_info(n_workers=-1)["workers"]]
        yield {"address": client.scheduler.address}, workers
