"""``python -m dask_rs.scheduler``: becomes dask-rs's ``dask-scheduler``, for what starts schedulers as Python modules."""

import sys

from dask_rs.binaries import run


def main():
    run("dask-scheduler", sys.argv[1:])


if __name__ == "__main__":
    main()
