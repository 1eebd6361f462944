"""``python -m dask_rs.spec``: ``dask spec`` of dask-rs, which SSHCluster, SubprocessCluster and dask-cloudprovider call.

::

    --spec '{"cls": "distributed.Scheduler", "opts": {"port": 0}}'
    tcp://10.0.0.1:8786 --spec '{"0": {"cls": "distributed.Nanny", "opts": {"nthreads": 2}}}'
"""

import os
import signal
import subprocess
import sys
import time

from dask_rs import _follow, binaries

# Seconds. Upstream's SubprocessCluster tells its scheduler to end and then looks its process up, which fails when that has
# ended already; upstream's takes a while to end.
LINGER = 0.5


def main(argv=None, *, stay=False):
    """Runs the command. With ``stay`` this process stays the parent of what it starts, and ends a little later."""
    arguments = ["spec", *(sys.argv[1:] if argv is None else argv)]
    if not stay:
        binaries.run_front(arguments)
    status = _below(arguments)
    time.sleep(LINGER)
    sys.exit(status)


def _below(arguments):
    """Runs the command as a child that gets this process's signals and ends when this one does; its exit status."""
    try:
        program = binaries.find_front()
    except binaries.BinaryNotFound as error:
        sys.exit(f"Error: {error}")
    child = None

    def pass_on(number, _frame):
        if child is not None:
            child.send_signal(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, pass_on)
    follow = [sys.executable, "-I", "-S", _follow.__file__, str(os.getpid())]
    child = subprocess.Popen([*follow, program, *arguments], env={"DASK_PYTHON": sys.executable, **os.environ})
    return abs(child.wait())


if __name__ == "__main__":
    main()
