"""``python -m dask_rs.spec``: takes the arguments of ``dask spec`` and starts dask-rs's programs.

SSHCluster, SubprocessCluster and dask-cloudprovider name what they start by a specification::

    --spec '{"cls": "distributed.Scheduler", "opts": {"port": 0}}'
    tcp://10.0.0.1:8786 --spec '{"0": {"cls": "distributed.Nanny", "opts": {"nthreads": 2}}}'
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time

from dask_rs import _follow
from dask_rs.binaries import BinaryNotFound, find_binary
from dask_rs.options import CLASSES, SCHEDULER, UnknownOption, arguments

# Seconds. Upstream's SubprocessCluster tells its scheduler to end and then looks its process up, which fails when that has
# ended already; upstream's takes a while to end.
LINGER = 0.5


def main(argv=None, *, stay=False):
    """Runs the command. With ``stay`` this process stays the parent of what it starts, and ends a little later."""
    parser = argparse.ArgumentParser(prog="dask spec", description="Start dask-rs's processes from a specification")
    parser.add_argument("args", nargs="*", help="the scheduler's address, for workers")
    parser.add_argument("--spec", default="", help="JSON")
    parser.add_argument("--spec-file", help="a file of JSON or YAML")
    given = parser.parse_args(argv)
    try:
        commands = [command(entry, given.args) for entry in read(given.spec, given.spec_file)]
    except (BinaryNotFound, UnknownOption, ValueError, OSError) as error:
        sys.exit(f"Error: {error}")
    if len(commands) == 1 and not stay:
        program, variables = commands[0]
        os.execve(program[0], program, variables)
    status = together(commands)
    if stay:
        time.sleep(LINGER)
    sys.exit(status)


def read(text, file):
    """The entries of a specification: a list of ``{"cls": ..., "opts": ...}``."""
    if bool(text) == bool(file):
        raise ValueError("exactly one of --spec and --spec-file is needed")
    if file:
        with open(file) as stream:
            text = stream.read()
    try:
        spec = json.loads(text)
    except json.JSONDecodeError:
        if not file:
            raise
        import yaml

        spec = yaml.safe_load(text)
    entries = [spec] if isinstance(spec, dict) and "cls" in spec else list(spec.values()) if isinstance(spec, dict) else []
    if not entries or not all(isinstance(entry, dict) and "cls" in entry for entry in entries):
        raise ValueError('a specification is {"cls": ..., "opts": {...}}, or names with one each')
    return entries


def command(entry, positional):
    """The command line and the environment for one entry."""
    kind = CLASSES.get(entry["cls"])
    if kind is None:
        raise ValueError(f"{entry['cls']}: dask-rs starts {', '.join(sorted(set(CLASSES.values())))} and no other class")
    options, variables = arguments(kind, entry.get("opts") or {})
    program = "dask-scheduler" if kind == SCHEDULER else "dask-worker"
    environment = {"DASK_PYTHON": sys.executable, **os.environ, **variables}
    return [find_binary(program), *positional, *options], environment


def together(commands):
    """Runs programs until all have ended; signals go on to each, and they end when this process does. The worst exit
    status."""
    children = []

    def pass_on(number, _frame):
        for child in children:
            child.send_signal(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, pass_on)
    follow = [sys.executable, "-I", "-S", _follow.__file__, str(os.getpid())]
    children.extend(subprocess.Popen([*follow, *program], env=environment) for program, environment in commands)
    return max((abs(child.wait()) for child in children), default=0)


if __name__ == "__main__":
    main()
