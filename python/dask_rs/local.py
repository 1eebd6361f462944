"""A cluster of dask-rs on this machine."""

import logging
import math

import toolz
from dask.system import CPU_COUNT
from distributed.deploy.spec import SpecCluster
from distributed.deploy.utils import nprocesses_nthreads
from distributed.security import Security
from distributed.worker_memory import parse_memory_limit

from dask_rs.processes import Nanny, Scheduler, Worker

logger = logging.getLogger(__name__)


class LocalCluster(SpecCluster):
    """A scheduler and workers of dask-rs on this machine, to be used as ``distributed.LocalCluster``.

    Parameters are those of ``distributed.LocalCluster`` with the same meaning, but for these:

    processes
        Scheduler and workers are always processes of their own. ``processes=False`` asks for one worker with as many
        threads as there are processors, without a nanny.
    worker_class
        `dask_rs.Nanny` or `dask_rs.Worker`.
    worker_kwargs
        Keywords of upstream's workers that have a meaning outside Python, such as ``memory_limit``, ``resources``,
        ``local_directory``, ``lifetime``, ``preload`` or ``env``; and ``python``, the interpreter that runs tasks (this
        one).

    The processes end when this one does.
    """

    def __init__(
        self,
        name=None,
        n_workers=None,
        threads_per_worker=None,
        processes=None,
        loop=None,
        host=None,
        scheduler_port=0,
        silence_logs=logging.WARNING,
        dashboard_address=":8787",
        worker_dashboard_address=None,
        asynchronous=False,
        security=None,
        protocol=None,
        interface=None,
        worker_class=None,
        scheduler_kwargs=None,
        scheduler_sync_interval=1,
        **worker_kwargs,
    ):
        if worker_class is None:
            worker_class = Worker if processes is False else Nanny
        elif not issubclass(worker_class, Nanny):
            raise TypeError(f"worker_class is dask_rs.Nanny or dask_rs.Worker here, not {worker_class}")
        if security is True:
            security = Security.temporary()
        elif security is None:
            security = Security()
        elif not isinstance(security, Security):
            raise TypeError("security is a Security object, or True")
        if protocol is None:
            protocol = host.split("://")[0] if host and "://" in host else "tls" if security.require_encryption else "tcp"
        protocol = protocol.removesuffix("://")
        if host is None and not interface:
            host = "127.0.0.1"

        n_workers, threads_per_worker = _shape(n_workers, threads_per_worker, one=processes is False)
        if n_workers and "memory_limit" not in worker_kwargs:
            worker_kwargs["memory_limit"] = parse_memory_limit("auto", 1, n_workers, logger=logger)

        common = {"host": host, "interface": interface, "protocol": protocol, "security": security}
        common["silence_logs"] = silence_logs
        scheduler = {
            "port": scheduler_port,
            "dashboard": dashboard_address is not None,
            "dashboard_address": _on_host(dashboard_address, host),
        }
        worker = {
            "nthreads": threads_per_worker,
            "dashboard": worker_dashboard_address is not None,
            "dashboard_address": _on_host(worker_dashboard_address, host),
        }
        new = {"cls": worker_class, "options": toolz.merge(common, worker, worker_kwargs)}
        super().__init__(
            name=name,
            scheduler={"cls": Scheduler, "options": toolz.merge(common, scheduler, scheduler_kwargs or {})},
            workers={i: new for i in range(n_workers)},
            worker=new,
            loop=loop,
            asynchronous=asynchronous,
            silence_logs=silence_logs,
            security=security,
            scheduler_sync_interval=scheduler_sync_interval,
        )


def _shape(n_workers, threads, one):
    """How many workers with how many threads each."""
    if n_workers is None and threads is None:
        return (1, CPU_COUNT) if one else nprocesses_nthreads()
    if n_workers is None:
        return (1 if one else max(1, CPU_COUNT // threads)), threads
    if threads is None:
        threads = max(1, math.ceil(CPU_COUNT / n_workers)) if n_workers else 1
    return n_workers, threads


def _on_host(address, host):
    """A port alone is one on the cluster's own host."""
    if isinstance(address, str) and address.startswith(":") and host:
        return host.split("://")[-1].rsplit(":", 1)[0] + address
    return address
