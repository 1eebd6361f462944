"""Where dask-rs's programs are."""

import os
import shutil
import sys
import sysconfig

# Names a directory that holds the programs, and is looked at alone when set.
VARIABLE = "DASK_RS_BIN"


class BinaryNotFound(FileNotFoundError):
    """A program of dask-rs is nowhere; the text says where it was looked for."""


def find_binary(name):
    """The path of a program of dask-rs, such as ``dask-scheduler``.

    Looked for in ``$DASK_RS_BIN`` if that is set; else among the scripts of this environment and of the user, beside the
    running interpreter, and on ``PATH``. Scripts of the same name are other packages' (older releases of
    ``distributed`` had them) and do not count.

    Raises `BinaryNotFound`.
    """
    tried = []
    for directory in _directories():
        path = os.path.join(directory, name)
        if path in tried:
            continue
        if _is_program(path):
            return path
        tried.append(path)
    raise BinaryNotFound(
        f"{name} of dask-rs was not found. Install it (pip install dask-rs, or cargo install --path dask in its "
        f"sources), or set {VARIABLE} to the directory that holds it. Looked at: {', '.join(tried)}"
    )


def find_front():
    """The path of the front command, which is ``dask-rs`` in a wheel and ``dask`` in other builds.

    Raises `BinaryNotFound`.
    """
    try:
        return find_binary("dask-rs")
    except BinaryNotFound:
        return find_binary("dask")


def _directories():
    named = os.environ.get(VARIABLE)
    if named:
        return [named]
    user_scheme = sysconfig.get_preferred_scheme("user")
    return [
        sysconfig.get_path("scripts"),
        os.path.dirname(os.path.abspath(sys.executable)),
        sysconfig.get_path("scripts", user_scheme),
        *filter(None, os.environ.get("PATH", os.defpath).split(os.pathsep)),
    ]


def _is_program(path):
    if shutil.which(path) is None:
        return False
    try:
        with open(path, "rb") as file:
            return file.read(2) != b"#!"
    except OSError:
        return False


def run(name, arguments):
    """Becomes a program of dask-rs: the process stays the same, so signals and exit status are the program's.

    Its Python, unless told otherwise, is this interpreter.
    """
    _become(lambda: find_binary(name), name, arguments)


def run_front(arguments):
    """Becomes the front command."""
    _become(find_front, "dask", arguments)


def _become(find, name, arguments):
    try:
        path = find()
    except BinaryNotFound as error:
        sys.exit(f"Error: {error}")
    os.environ.setdefault("DASK_PYTHON", sys.executable)
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(path, [name, *arguments])
