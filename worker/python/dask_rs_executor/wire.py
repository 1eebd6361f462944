"""Messages between the worker process and this one.

The framing is that of dask's TCP connections. A message is a batch (an array of maps); user data in it is left
undecoded as ``Packed`` until a task needs it, so that the thread that reads never runs user code.
"""

import collections
import logging
import os
import socket
import struct
import threading
import time

import dask
import msgpack
from distributed.core import error_message
from distributed.protocol import dumps, pickle
from distributed.protocol.core import decompress
from distributed.protocol.serialize import Serialized, merge_and_deserialize
from distributed.protocol.utils import msgpack_opts
from distributed.utils import ensure_memoryview

from .regions import regions

logger = logging.getLogger("distributed.worker")

# Frames up to this size are copied into one buffer; larger ones are sent from where they are.
JOIN_BYTES_MAX = 64 * 1024
# How many messages may wait for more to be sent with, and for how many seconds.
POSTED_MAX = 8
POSTED_SECONDS_MAX = 0.001
# The kernel takes at most this many buffers in one call (IOV_MAX).
SEND_BUFFERS_MAX = 512
READ_BUFFER_BYTES = 256 * 1024


class Packed:
    """User data as it travelled. ``load`` decodes it once, and lets go of the packed form."""

    __slots__ = ("header", "frames", "_lock", "_value", "_loaded")

    def __init__(self, header, frames):
        self.header = header
        self.frames = frames
        self._lock = threading.Lock()
        self._loaded = False
        self._value = None

    def load(self):
        """The decoded value. Raises what its pickle raises, each time."""
        with self._lock:
            if not self._loaded:
                self._value = self._decode()
                self._loaded = True
                self.frames = None
            return self._value

    def _decode(self):
        frames = self.frames
        if frames and "compression" in self.header:
            frames = decompress(self.header, frames)
        if "pickled-obj" in self.header:
            return pickle.loads(self.header["pickled-obj"], buffers=[_writable(frame) for frame in frames])
        return merge_and_deserialize(self.header, frames)

    def relay(self):
        """The same data for an outgoing message; None once it is decoded."""
        with self._lock:
            return None if self._loaded else Serialized(self.header, self.frames)


def _writable(frame):
    """``frame``, or a copy that arrays may live in: tasks write into what they are given, as in upstream's workers."""
    return bytearray(frame) if memoryview(frame).readonly else frame


class Sealed(Serialized):
    """A serialised value whose sub-header is packed already."""

    def __init__(self, header, frames, packed=None):
        super().__init__(header, frames)
        self.packed = packed or msgpack.packb({**header, "num-sub-frames": len(frames)}, use_bin_type=True)


def encode(batch):
    """The frames of a batch. Anything that is not plain or sealed takes dask's own, slower way."""
    frames = [None]

    def seal(obj):
        if type(obj) is Sealed:
            offset = len(frames)
            frames.append(obj.packed)
            frames.extend(obj.frames)
            return {"__Serialized__": offset}
        raise TypeError(type(obj))

    try:
        frames[0] = msgpack.packb(batch, default=seal, use_bin_type=True)
    except (TypeError, ValueError, OverflowError):
        return dumps(batch)
    return frames


def _encode_alone(message):
    try:
        return encode([message])
    except Exception as error:
        logger.exception("Could not pack a message (%s) for the worker", message["op"])
        if message["op"] != "reply":
            return encode([])
        return encode([{"op": "reply", "id": message["id"], "reply": error_message(error, "uncaught-error")}])


def _decode_tagged(obj):
    if "__Set__" in obj:
        return set(obj["as-list"])
    return obj


def _unpack(data, object_hook):
    return msgpack.loads(data, object_hook=object_hook, use_list=False, **msgpack_opts)


def decode(frames):
    """The batch in these frames, user data undecoded."""

    def hook(obj):
        offset = obj.get("__Serialized__") or obj.get("__Pickled__")
        if type(offset) is int and offset > 0:
            header = _unpack(frames[offset], _decode_tagged)
            start = offset + 1
            return Packed(header, frames[start : start + header["num-sub-frames"]])
        return _decode_tagged(obj)

    return _unpack(frames[0], hook)


def loaded(value):
    """``value`` with everything packed in it decoded (arguments of remote calls)."""
    if isinstance(value, Packed):
        return value.load()
    if isinstance(value, dict):
        return {k: loaded(v) for k, v in value.items()}
    if isinstance(value, (tuple, list)):
        return type(value)(loaded(v) for v in value)
    return value


class LinkHandler(logging.Handler):
    """Passes log records on, for ``get_logs``."""

    def __init__(self, link):
        super().__init__()
        self._link = link
        self._busy = threading.local()
        self.setFormatter(logging.Formatter(dask.config.get("distributed.admin.log-format")))

    def emit(self, record):
        """Sends one record; records made by sending it are not sent."""
        if getattr(self._busy, "now", False):
            return
        self._busy.now = True
        try:
            line = self.format(record)
            message = {"op": "log", "created": record.created, "level": record.levelname, "logger": record.name}
            self._link.send({**message, "line": line})
        except Exception:
            self.handleError(record)
        finally:
            self._busy.now = False


class Framed:
    """A socket between processes of one worker: one thread reads, one at a time writes."""

    def __init__(self, fd):
        self.sock = socket.socket(fileno=fd)
        self.sock.setblocking(True)
        self._reader = self.sock.makefile("rb", buffering=READ_BUFFER_BYTES)

    def receive(self):
        """The next batch; raises EOFError when the other process is gone."""
        (size,) = struct.unpack("<Q", self._exactly(8))
        prelude = self._exactly(8)
        (count,) = struct.unpack("<Q", prelude)
        lengths = struct.unpack(f"<{count}Q", self._exactly(8 * count))
        batch = decode([self._exactly(n) for n in lengths])
        return batch if isinstance(batch, (tuple, list)) else (batch,)

    def _exactly(self, size):
        if size <= JOIN_BYTES_MAX:
            data = self._reader.read(size)
            if len(data) != size:
                raise EOFError
            return data
        target, _ = regions.take(size)
        filled = 0
        while filled < size:
            n = self._reader.readinto(target[filled:])
            if not n:
                raise EOFError
            filled += n
        return target

    def write(self, frames):
        """Sends the frames of one batch."""
        views = [ensure_memoryview(frame) for frame in frames]
        lengths = [view.nbytes for view in views]
        prelude = struct.pack(f"<{len(lengths) + 1}Q", len(lengths), *lengths)
        head = struct.pack("<Q", len(prelude) + sum(lengths)) + prelude
        small = [head]
        for view in views:
            if view.nbytes <= JOIN_BYTES_MAX:
                small.append(view)
            else:
                self.sock.sendall(b"".join(small))
                self.sock.sendall(view)
                small = []
            if len(small) >= SEND_BUFFERS_MAX:
                self.sock.sendall(b"".join(small))
                small = []
        if small:
            self.sock.sendall(b"".join(small))


class Link(Framed):
    """The socket to the worker process: any thread sends."""

    def __init__(self, fd):
        super().__init__(fd)
        self._queue = collections.deque()
        self._sending = threading.Lock()
        self._posted = threading.Event()
        self._posted_since = 0.0
        threading.Thread(target=self._send_posted, name="Dask-Worker-Post", daemon=True).start()

    def post(self, message, now):
        """Queues one message that can wait for more, which are about to come; ``now`` is the time in seconds."""
        if not self._queue:
            self._posted_since = now
        self._queue.append(message)
        if len(self._queue) >= POSTED_MAX or now - self._posted_since >= POSTED_SECONDS_MAX:
            self._send_queued()
        elif not self._posted.is_set():
            self._posted.set()

    def _send_posted(self):
        # For when no more came.
        while True:
            self._posted.wait()
            time.sleep(POSTED_SECONDS_MAX)
            self._posted.clear()
            self._send_queued()

    def send(self, message):
        """Queues one message. Whoever finds the socket free sends all that is queued as one batch."""
        self._queue.append(message)
        self._send_queued()

    def _send_queued(self):
        while self._queue and self._sending.acquire(blocking=False):
            try:
                batch = []
                while self._queue:
                    batch.append(self._queue.popleft())
                if batch:
                    self._write_batch(batch)
            except OSError:
                # Without the worker process there is nobody to work for.
                os._exit(0)
            finally:
                self._sending.release()

    def _write_batch(self, batch):
        try:
            frames = encode(batch)
        except Exception:
            # One message cannot be packed; the others must not suffer.
            for message in batch:
                self.write(_encode_alone(message))
        else:
            self.write(frames)
