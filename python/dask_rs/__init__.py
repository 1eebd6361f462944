"""dask-rs for Python: clusters of its scheduler and workers, and native tasks by name.

    from dask_rs import LocalCluster, native

    with LocalCluster(n_workers=2) as cluster, cluster.get_client() as client:
        future = client.submit(native("resize"), image, 64)
        other = client.submit(summarise, future)    # a Python function may read the result, and the other way round

A native task is a Rust function that is registered in the workers' binary under that name. Arguments are given by
position; they and the results are plain values: numbers, texts, bytes, lists, tuples and dicts, or futures of these.

`LocalCluster`, `Scheduler`, `Worker` and `Nanny` need `distributed`, which is imported when they are first used.
"""

from importlib import import_module

__all__ = ["BinaryNotFound", "LocalCluster", "Nanny", "Scheduler", "Worker", "find_binary", "native"]

_HOMES = {
    "BinaryNotFound": "binaries",
    "LocalCluster": "local",
    "Nanny": "processes",
    "Scheduler": "processes",
    "Worker": "processes",
    "find_binary": "binaries",
}


def __getattr__(name):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__():
    return sorted({*globals(), *__all__})


class native:
    """The native task registered under ``name``. To be submitted; it runs on dask-rs workers that have it."""

    def __init__(self, name):
        if not isinstance(name, str):
            raise TypeError(f"the name of a native task is a str, not {type(name).__name__}")
        self.name = name
        self.__name__ = name

    def __call__(self, *args):
        raise RuntimeError(
            f"native task {self.name!r} runs only on a dask-rs worker whose binary has it; "
            "this is Python (a worker of dask.distributed, or a direct call)"
        )

    def __reduce__(self):
        return native, (self.name,)

    def __repr__(self):
        return f"native({self.name!r})"

    def __eq__(self, other):
        return isinstance(other, native) and other.name == self.name

    def __hash__(self):
        return hash((native, self.name))

    def __dask_tokenize__(self):
        return "dask_rs.native", self.name
