"""The ``dask_cli`` entry points: with dask-rs installed, ``dask scheduler``, ``dask worker`` and ``dask spec`` start its
programs; ``DASK_RS_CLI=off`` leaves upstream's.

``dask`` takes the last of two commands of one name, and their order is that of directories on disk. So whichever comes
first, the modules of upstream's commands get ours as well.
"""

import importlib
import os
import warnings

import click

from dask_rs import binaries
from dask_rs import spec as specification

VARIABLE = "DASK_RS_CLI"
# Two commands of one name are what is wanted here.
warnings.filterwarnings("ignore", message=r"While registering the command with name '(scheduler|worker|spec)'")

_PASS_ON = {"ignore_unknown_options": True, "help_option_names": []}


def _upstream(name):
    try:
        return importlib.import_module(f"distributed.cli.dask_{name}")
    except ImportError:
        return None


def _command(name, run, text):
    module = _upstream(name)
    if os.environ.get(VARIABLE, "").lower() in ("off", "0", "false") and module is not None:
        return module.main

    @click.command(name=name, context_settings=_PASS_ON, help=text)
    @click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
    def command(arguments):
        run(list(arguments))

    if module is not None:
        module.main = command
    return command


scheduler = _command("scheduler", lambda rest: binaries.run("dask-scheduler", rest), "Launch a Dask scheduler (dask-rs).")
worker = _command("worker", lambda rest: binaries.run("dask-worker", rest), "Launch a Dask worker (dask-rs).")


def _spec(arguments):
    specification.main(arguments, stay=True)


spec = _command("spec", _spec, "Launch Dask processes from a JSON/YAML specification (dask-rs).")


def _explain(arguments):
    binaries.run_front(["explain", *arguments])


explain = _command("explain", _explain, "Tell why a task waits, why it is where it is, and what happened to it (dask-rs).")
