"""The Python process of a worker: runs tasks and keeps their results. Started by the worker, ends with it."""

import asyncio
import ctypes
import logging
import os
import signal
import sys
import threading

from . import hello

logger = logging.getLogger("distributed.worker")

PR_SET_PDEATHSIG = 1
# Tells the worker that the packages it needs are not there.
IMPORT_FAILED_STATUS = 78
TEARDOWN_SECONDS_MAX = 5


def _die_with_parent():
    parent = int(os.environ["DASK_RS_WORKER_PID"])
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)
    # The worker process decides when to stop; a Ctrl-C of the terminal reaches both.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)


def _read(link, worker):
    from . import calls, lending, tasks

    def dispatch(message):
        op = message["op"]
        if op == "execute":
            tasks.start(worker, message)
        elif op == "interrupt":
            worker.runs.interrupt(message["key"], message["run_id"], message["limit"])
        elif op == "give_up":
            worker.runs.give_up(message["key"], message["run_id"], worker.executors["default"])
        elif op == "replaceable":
            link.send({"op": "reply", "id": message["id"], "reply": not worker.is_bound()})
        elif op == "drop":
            for key in message["keys"]:
                worker.data.discard(key)
                worker.tell_transition(key, "memory", "released")
                worker.tell_transition(key, "released", "forgotten")
                worker.state.actors.pop(key, None)
        elif op == "noted":
            worker.noted.arrived(message["id"])
        elif op == "hold":
            worker.holds.begin(worker, message)
        elif op == "unhold":
            worker.holds.take(message["key"], message["run_id"])
        elif op == "evict":
            worker.data.evict(message["keys"])
            worker.serving.submit(calls.give_memory_back, worker, message)
        elif op == "loaded":
            worker.loads.arrived(worker, message)
        elif op == "fetch":
            # Taken here, because the values may be dropped before a thread is free.
            worker.serving.submit(calls.fetch, worker, message, tasks.here(worker, message["keys"]))
        elif op == "lend":
            kept = worker.lent[message["id"]] = []
            worker.serving.submit(lending.lend, worker, message, tasks.here(worker, message["keys"]), kept)
        elif op == "take_back":
            worker.lent.pop(message["id"], None)
        elif op == "borrow":
            kept = worker.borrowed[message["id"]] = {}
            worker.serving.submit(lending.borrow, worker, message, kept)
        elif op == "keep_borrowed":
            for key, packed in worker.borrowed.pop(message["id"]).items():
                worker.data.take(key, packed)
        elif op == "drop_borrowed":
            worker.borrowed.pop(message["id"], None)
        elif op == "measure":
            worker.serving.submit(calls.measure, worker, message)
        elif op == "request":
            worker.loop.add_callback(calls.answer, worker, message)
        elif op == "stream":
            worker.loop.add_callback(calls.stream, worker, message)
        elif op == "delay":
            worker.scheduler_delay = message["seconds"]
        elif op == "close":
            worker.loop.add_callback(_stop, worker)

    try:
        while True:
            for message in link.receive():
                dispatch(message)
    except (EOFError, OSError):
        os._exit(0)
    except BaseException:
        # Without this thread the worker would wait for ever.
        logger.critical("The thread that reads from the worker failed", exc_info=True)
        os._exit(1)


async def _stop(worker):
    try:
        await asyncio.wait_for(worker.tear_down(), TEARDOWN_SECONDS_MAX)
    except Exception:
        logger.exception("Tearing the Python process down failed")
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


async def _serve(link, options):
    from tornado.ioloop import IOLoop

    from .facade import Worker
    from .wire import LinkHandler

    worker = Worker(link, IOLoop.current(), options)
    await worker.rpc.start()
    await worker.load_preloads(options)
    worker.sampler.start()
    logging.getLogger("distributed").addHandler(LinkHandler(link))
    threading.Thread(target=_read, args=(link, worker), name="Dask-Worker-Link", daemon=True).start()
    link.send({"op": "started"})
    await asyncio.Event().wait()


def main():
    """Connects to the worker process and serves it until it goes away."""
    _die_with_parent()
    if missing := hello.missing():
        print(f"{sys.executable}: no package {', '.join(missing)}", file=sys.stderr)
        os._exit(IMPORT_FAILED_STATUS)
    descriptor = int(os.environ["DASK_PARENT_FD"])
    runs = hello.runs_memory()
    hello.send(descriptor, runs)
    try:
        import dask

        from . import calls, facade, lending  # noqa: F401
        from .wire import Link
    except Exception:
        logger.exception("%s: dask.distributed is installed and cannot be imported", sys.executable)
        os._exit(IMPORT_FAILED_STATUS)

    link = Link(descriptor)
    dask.config.set({"distributed.worker.daemon": False})
    (options,) = link.receive()
    asyncio.run(_serve(link, {**options, "runs": runs}))


if __name__ == "__main__":
    main()
