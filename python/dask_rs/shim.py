"""``dask-rs-python``: an interpreter for deployers that call ``PYTHON -m distributed.cli.dask_worker`` and the like.

Those modules become dask-rs's programs; everything else is handed to the Python of this environment. To be given as
``remote_python`` of SSHCluster, ``python`` of dask-jobqueue's clusters, or ``--remote-python`` of ``dask ssh``.
"""

import os
import sys

from dask_rs import binaries, spec

PROGRAMS = {
    "distributed.cli.dask_scheduler": "dask-scheduler",
    "distributed.cli.dask_worker": "dask-worker",
    "dask_rs.scheduler": "dask-scheduler",
    "dask_rs.worker": "dask-worker",
}
COMMANDS = {"scheduler": "dask-scheduler", "worker": "dask-worker"}


def main(argv=None):
    argv = sys.argv[1:] if argv is None else argv
    match argv:
        case ["-m", module, *rest] if module in PROGRAMS:
            binaries.run(PROGRAMS[module], rest)
        case ["-m", "dask", command, *rest] if command in COMMANDS:
            binaries.run(COMMANDS[command], rest)
        case ["-m", "distributed.cli.dask_spec" | "dask_rs.spec", *rest] | ["-m", "dask", "spec", *rest]:
            spec.main(rest)
        case _:
            os.execv(sys.executable, [sys.executable, *argv])


if __name__ == "__main__":
    main()
