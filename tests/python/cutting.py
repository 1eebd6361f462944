"""A TCP proxy that cuts what goes through it."""

import select
import socket
import struct
import threading

CHUNK = 1 << 16


def close_with_reset(end):
    """Closes at once, as a cut does: what is on its way is lost."""
    try:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    except OSError:
        pass
    end.close()


class Proxy:
    """Forwards connections to `target` ("tcp://host:port") until told otherwise."""

    def __init__(self, target, host="127.0.0.1"):
        target_host, port = target.removeprefix("tcp://").rsplit(":", 1)
        self.target = (target_host, int(port))
        self.listener = socket.create_server((host, 0), backlog=64)
        self.address = f"tcp://{host}:{self.listener.getsockname()[1]}"
        self.lock = threading.Lock()
        self.pairs = []
        self.blocked = self.closed = False
        self.cuts = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            if self.blocked:
                close_with_reset(near)
                continue
            try:
                far = socket.create_connection(self.target)
            except OSError:
                close_with_reset(near)
                continue
            for end in (near, far):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self.lock:
                self.pairs.append((near, far))
            threading.Thread(target=self._forward, args=(near, far), daemon=True).start()

    def _forward(self, near, far):
        other = {near: far, far: near}
        try:
            while True:
                for end in select.select([near, far], [], [])[0]:
                    data = end.recv(CHUNK)
                    if not data:
                        return
                    other[end].sendall(data)
        except (OSError, ValueError):
            pass  # It was cut.
        finally:
            with self.lock:
                if (near, far) in self.pairs:
                    self.pairs.remove((near, far))
                    near.close()
                    far.close()

    def cut(self, half_open=False):
        """Cuts all connections. `half_open`: the target is not told of it."""
        with self.lock:
            pairs, self.pairs = self.pairs, []
        for near, far in pairs:
            self.cuts += 1
            for end in (near, far):
                try:
                    if not (half_open and end is far):
                        end.shutdown(socket.SHUT_RDWR)  # Wakes the thread that forwards.
                except OSError:
                    pass
            close_with_reset(near)
            if half_open:
                self.kept = [*getattr(self, "kept", []), far]
            else:
                close_with_reset(far)

    def block(self):
        """Cuts, and lets nobody in."""
        self.blocked = True
        self.cut()

    def unblock(self):
        self.blocked = False

    def close(self):
        self.listener.close()
        self.cut()
        for far in getattr(self, "kept", []):
            far.close()
