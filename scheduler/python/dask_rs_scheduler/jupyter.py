"""A Jupyter server beside the scheduler (`dask-scheduler --jupyter`), reached through the scheduler's own HTTP server."""

import os
import signal
import sys
import threading

ACTIVITY_SECONDS = 1


def _wait(link):
    # The scheduler says nothing more; when it is gone, kernels are shut down with the server.
    try:
        while True:
            link.receive()
    except (EOFError, OSError):
        os.kill(os.getpid(), signal.SIGTERM)


def main():
    """Serves until the scheduler goes away, or until somebody shuts the server down from a page."""
    from .link import Link

    link = Link(int(os.environ.pop("DASK_PARENT_FD")))
    (introduction,) = link.receive()
    try:
        from jupyter_server.serverapp import ServerApp
        from tornado.ioloop import PeriodicCallback
        from traitlets.config import Config
    except ImportError as error:
        sys.exit(f"--jupyter needs jupyterlab, or at least jupyter_server: {error}")
    os.environ["DASK_SCHEDULER_ADDRESS"] = introduction["address"]
    settings = {
        "base_url": introduction["base_url"],
        # Nobody else on this machine gets past the scheduler to it.
        "sock": introduction["socket"],
        "sock_mode": "0600",
        # As upstream: who reaches the dashboard is let in.
        "token": "",
        "allow_remote_access": True,
        "allow_root": True,
        "open_browser": False,
    }
    server = ServerApp.instance(config=Config({"ServerApp": settings}))
    server.initialize(argv=[])
    # The scheduler decides when to stop; a Ctrl-C of the terminal reaches both.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_wait, args=(link,), name="dask-rs-link", daemon=True).start()

    def tell_activity():
        link.send({"op": "active", "at": server.web_app.last_activity().timestamp()})

    link.send({"op": "ready"})
    PeriodicCallback(tell_activity, ACTIVITY_SECONDS * 1000).start()
    server.start()
