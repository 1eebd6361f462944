"""The process itself. Started by the scheduler when Python is first needed, ends with it."""

import asyncio
import ctypes
import logging
import os
import signal
import sys
import threading

logger = logging.getLogger("distributed.scheduler")

PR_SET_PDEATHSIG = 1
# Tells the scheduler that the packages it needs are not there.
IMPORT_FAILED_STATUS = 78


def _die_with_parent():
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    # The scheduler decides when to stop; a Ctrl-C of the terminal reaches both.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)


def _read(link, loop, service):
    try:
        while True:
            for message in link.receive():
                if message["op"] == "answer":
                    link.answered(message)
                else:
                    loop.call_soon_threadsafe(service.take, message)
    except (EOFError, OSError):
        os._exit(0)
    except BaseException:
        logger.critical("The thread that reads from the scheduler failed", exc_info=True)
        os._exit(1)


async def _serve(link):
    from .facade import Scheduler
    from .service import Service

    (introduction,) = link.receive()
    scheduler = Scheduler(link, introduction)
    service = Service(link, scheduler)
    await scheduler.rpc.start()
    loop = asyncio.get_running_loop()
    threading.Thread(target=_read, args=(link, loop, service), name="dask-rs-link", daemon=True).start()
    link.send({"op": "ready", "python": sys.executable, "pid": os.getpid()})
    await asyncio.Event().wait()


def main():
    """Connects to the scheduler and serves it until it goes away."""
    _die_with_parent()
    try:
        from .link import Link
    except ImportError as error:
        print(f"{sys.executable}: {error}", file=sys.stderr)
        os._exit(IMPORT_FAILED_STATUS)
    asyncio.run(_serve(Link(int(os.environ["DASK_PARENT_FD"]))))


if __name__ == "__main__":
    main()
