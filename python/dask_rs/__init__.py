"""Native tasks of dask-rs workers, for Python clients of the same cluster.

    from dask_rs import native

    future = client.submit(native("resize"), image, 64)
    other = client.submit(summarise, future)        # a Python function may read the result, and the other way round

A native task is a Rust function that is registered in the workers' binary under that name. Arguments are given by
position; they and the results are plain values: numbers, texts, bytes, lists, tuples and dicts, or futures of these.
"""

__all__ = ["native"]


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
