"""Messages between the scheduler and this process, in the framing of dask's TCP connections.

A message is a batch (an array of maps). Serialised user data in it stays as it is: the scheduler upstream does not decode
it either.
"""

import collections
import concurrent.futures
import os
import socket
import struct
import threading

from distributed.core import clean_exception
from distributed.protocol import deserialize, dumps, loads
from distributed.protocol.serialize import Serialize, Serialized


class Link:
    """The socket to the scheduler: one thread reads, any thread sends, and any thread may ask and wait."""

    def __init__(self, fd):
        self._socket = socket.socket(fileno=fd)
        self._socket.setblocking(True)
        self._reader = self._socket.makefile("rb", buffering=1 << 18)
        self._queue = collections.deque()
        self._sending = threading.Lock()
        self._lock = threading.Lock()
        self._waiting = {}
        self._last_id = 0

    def receive(self):
        """The next batch; raises EOFError when the scheduler is gone."""
        self._exactly(8)
        (count,) = struct.unpack("<Q", self._exactly(8))
        lengths = struct.unpack(f"<{count}Q", self._exactly(8 * count))
        batch = loads([self._exactly(length) for length in lengths], deserialize=False)
        return batch if isinstance(batch, (tuple, list)) else (batch,)

    def _exactly(self, size):
        data = self._reader.read(size)
        if len(data) != size:
            raise EOFError
        return data

    def send(self, message):
        """Queues one message. Whoever finds the socket free sends what is queued."""
        self._queue.append(message)
        while self._queue and self._sending.acquire(blocking=False):
            try:
                while self._queue:
                    self._write(dumps([self._queue.popleft()]))
            except OSError:
                # Without the scheduler there is nobody to work for.
                os._exit(0)
            finally:
                self._sending.release()

    def _write(self, frames):
        views = [memoryview(frame).cast("B") if memoryview(frame).nbytes else b"" for frame in frames]
        lengths = [len(view) for view in views]
        prelude = struct.pack(f"<{len(lengths) + 1}Q", len(lengths), *lengths)
        self._socket.sendall(struct.pack("<Q", len(prelude) + sum(lengths)) + prelude)
        for view in views:
            self._socket.sendall(view)

    def ask(self, request):
        """A future of the scheduler's answer to a request."""
        future = concurrent.futures.Future()
        with self._lock:
            self._last_id += 1
            number = self._last_id
            self._waiting[number] = future
        try:
            self.send({"op": "ask", "id": number, "request": request})
        except Exception as error:
            # Something in the request cannot be sent.
            with self._lock:
                del self._waiting[number]
            future.set_exception(error)
        return future

    def answered(self, message):
        """Gives an answer to whoever waits for it."""
        with self._lock:
            future = self._waiting.pop(message["id"])
        reply = message["reply"]
        if isinstance(reply, dict) and reply.get("status") == "uncaught-error":
            fields = {name: _loaded(reply.get(name)) for name in ("exception", "traceback")}
            _, error, _ = clean_exception(**fields)
            future.set_exception(error)
        else:
            future.set_result(reply)


def _loaded(value):
    return deserialize(value.header, value.frames) if isinstance(value, Serialized) else value


def opened(value):
    """``value`` as a local caller would see it: with serialised parts of it loaded."""
    if isinstance(value, (Serialized, Serialize)):
        return _loaded(value)
    if isinstance(value, dict):
        return {name: opened(part) for name, part in value.items()}
    return value
