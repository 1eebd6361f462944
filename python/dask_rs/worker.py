"""``python -m dask_rs.worker``: becomes dask-rs's ``dask-worker``, for what starts workers as Python modules."""

import sys

from dask_rs.binaries import run


def main():
    run("dask-worker", sys.argv[1:])


if __name__ == "__main__":
    main()
