"""Faults of processes, connections and disks, drawn from a seed."""

import os
import random
import signal
import subprocess
import time
import uuid

from cutting import Proxy
from networks import network
from own_workers import OwnWorker, alive, children
from waiting import eventually

# In the environment of every process of a run, and of all that they start.
MARK = "DASK_TEST_FAULTS"
GRACE_SECONDS = 3
WORKER_OPTIONS = ["--reconnect-grace", f"{GRACE_SECONDS}s", "--interrupt-grace", "1s", "--drain-grace", "10s"]
# Small shares, so that values go to disk although they are few.
WORKER_OPTIONS += ["--memory-limit", "1GiB", "--memory-target", "0.01", "--nthreads", "2"]
# Time between two faults, in seconds.
PAUSE_MAX = 1.5
DISK_BYTES = 64 << 20


class SmallDisk:
    """A file system of 64 MiB; needs root."""

    def __init__(self, path):
        self.path = path
        path.mkdir()
        options = f"size={DISK_BYTES}"
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", path], check=False)
        self.mounted = mounted.returncode == 0

    def fill(self):
        try:
            with open(self.path / "filling", "wb", buffering=0) as file:
                while True:
                    file.write(bytes(1 << 16))
        except OSError:
            pass  # It is full.

    def empty(self):
        (self.path / "filling").unlink(missing_ok=True)

    def close(self):
        if self.mounted:
            subprocess.run(["umount", "--lazy", self.path], check=False)


class Slot:
    """A nanny behind a proxy; another one takes its place when it ends."""

    def __init__(self, scheduler, directory, mark, number, network):
        self.number, self.network = number, network
        self.proxy = Proxy(scheduler, network.gateway) if network else Proxy(scheduler)
        self.directory, self.mark = directory, mark
        self.started = 0
        self.nannies = []
        self.busy = False
        self.start()

    def start(self):
        log = self.directory.parent / f"{self.directory.name}-{self.started}.log"
        self.started += 1
        options = [*WORKER_OPTIONS, "--local-directory", str(self.directory)]
        place = {}
        if self.network:
            place = {"host": self.network.host(self.number), "before": self.network.command(self.number)}
        self.nanny = OwnWorker(self.proxy.address, log, *options, env={MARK: self.mark}, **place)
        self.nannies.append(self.nanny)

    def worker(self):
        return next(iter(children(self.nanny.process.pid)), None)

    def executor(self):
        worker = self.worker()
        return worker and next(iter(children(worker)), None)

    def replace_if_ended(self):
        if self.nanny.process.poll() is not None:
            self.start()

    def says(self, text):
        return sum(nanny.log.read_text(errors="replace").count(text) for nanny in self.nannies)


class Faults:
    """Draws what goes wrong next, and mends it in its time."""

    def __init__(self, scheduler, directory, count, seed, ttl_seconds):
        self.rng = random.Random(seed)
        self.mark = uuid.uuid4().hex
        self.ttl_seconds = ttl_seconds
        self.disk = SmallDisk(directory / "disk")
        directories = [self.disk.path, *(directory / f"slot-{n}" for n in range(1, count))]
        for path in directories[1:]:
            path.mkdir()
        self.network = network(count)
        self.slots = [Slot(scheduler, path, self.mark, n, self.network) for n, path in enumerate(directories)]
        self.pending = []
        self.counts = {}

    def later(self, seconds, mend):
        self.pending.append((time.monotonic() + seconds, mend))

    def mend_due(self, everything=False):
        now = time.monotonic()
        due = [mend for at, mend in self.pending if everything or at <= now]
        self.pending = [(at, mend) for at, mend in self.pending if not everything and at > now]
        for mend in due:
            mend()
        for slot in self.slots:
            slot.replace_if_ended()

    def step(self):
        """One fault, and what is due of those before."""
        self.mend_due()
        slot = self.rng.choice(self.slots)
        names = ["kill_worker", "kill_executor", "kill_nanny", "stop_worker", "stop_executor", "cut", "cut", "half_open"]
        names += ["cut_for_a_while", "cut_for_long", "drain", "fill_disk", "pull_cable_for_a_while", "pull_cable_for_long"]
        name = self.rng.choice(names)
        if not slot.busy and getattr(self, name)(slot) is not False:
            self.counts[name] = self.counts.get(name, 0) + 1
        time.sleep(self.rng.random() * PAUSE_MAX)

    def signal(self, pid, number):
        if pid is None:
            return False
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return False
        return True

    def kill_worker(self, slot):
        return self.signal(slot.worker(), signal.SIGKILL)

    def kill_executor(self, slot):
        return self.signal(slot.executor(), signal.SIGKILL)

    def kill_nanny(self, slot):
        below = [pid for pid in (slot.worker(), slot.executor()) if pid]
        slot.nanny.kill()
        eventually(lambda: not any(map(alive, below)), f"the end of {below} with their nanny")

    def stop_for(self, slot, pid, seconds):
        if not self.signal(pid, signal.SIGSTOP):
            return False
        slot.busy = True

        def mend():
            self.signal(pid, signal.SIGCONT)
            slot.busy = False

        self.later(seconds, mend)
        return True

    def stop_worker(self, slot):
        return self.stop_for(slot, slot.worker(), self.ttl_seconds * 1.5)

    def stop_executor(self, slot):
        return self.stop_for(slot, slot.executor(), self.rng.random() * 3)

    def cut(self, slot):
        slot.proxy.cut()

    def half_open(self, slot):
        slot.proxy.cut(half_open=True)

    def block_for(self, slot, seconds):
        slot.busy = True
        slot.proxy.block()

        def mend():
            slot.proxy.unblock()
            slot.busy = False

        self.later(seconds, mend)

    def cut_for_a_while(self, slot):
        self.block_for(slot, self.rng.random() * GRACE_SECONDS / 2)

    def cut_for_long(self, slot):
        self.block_for(slot, GRACE_SECONDS * 2)

    def pull_cable_for(self, slot, seconds):
        if not self.network:
            return False
        slot.busy = True
        self.network.pull(slot.number)

        def mend():
            self.network.plug_in(slot.number)
            slot.busy = False

        self.later(seconds, mend)
        return True

    def pull_cable_for_a_while(self, slot):
        return self.pull_cable_for(slot, self.rng.random() * GRACE_SECONDS / 2)

    def pull_cable_for_long(self, slot):
        return self.pull_cable_for(slot, self.ttl_seconds * 1.5)

    def drain(self, slot):
        return self.signal(slot.nanny.process.pid, signal.SIGTERM)

    def fill_disk(self, _slot):
        if not self.disk.mounted:
            return False
        self.disk.fill()
        self.later(self.rng.random() * 5, self.disk.empty)
        return True

    def mend_all(self):
        self.mend_due(everything=True)

    def close(self):
        """Ends all workers as an operator would; whatever is left of them is for the caller to look for."""
        for slot in self.slots:
            self.signal(slot.nanny.process.pid, signal.SIGTERM)
        statuses = [slot.nanny.ended() for slot in self.slots]
        for slot in self.slots:
            slot.proxy.close()
        return statuses

    def abandon(self):
        """Whatever happened, nothing stays."""
        for slot in self.slots:
            slot.nanny.kill()
            slot.proxy.close()
        for pid in self.marked_processes():
            self.signal(pid, signal.SIGKILL)
        if self.network:
            self.network.close()
        self.disk.close()

    def marked_processes(self):
        found = []
        wanted = f"{MARK}={self.mark}".encode()
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{pid}/environ", "rb") as environ:
                    if wanted in environ.read().split(b"\0") and alive(int(pid)):
                        found.append(int(pid))
            except OSError:
                pass  # It ended meanwhile, or is somebody else's.
        return found

    def files(self):
        return [str(path) for slot in self.slots for path in (slot.directory / "dask-scratch-space").glob("*")]
