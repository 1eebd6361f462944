"""A scheduler and workers as processes, of either make: both take the same options."""

import os
import shutil
import subprocess
import tempfile

from distributed import Client

WORKERS = 2
THREADS = 2
START_SECONDS = 60


class Processes:
    """Starts on creation; `client` is connected and dask's default. `stop` ends everything and its files."""

    def __init__(self, scheduler, worker):
        self.directory = tempfile.mkdtemp(prefix="dask-suite-")
        self.log = open(os.path.join(self.directory, "log"), "ab")
        self.children = []
        self.client = None
        file = os.path.join(self.directory, "scheduler.json")
        shared = ["--scheduler-file", file, "--no-dashboard", "--host", "127.0.0.1"]
        try:
            self._start(scheduler + shared + ["--port", "0", "--dashboard-address", "127.0.0.1:0"])
            for number in range(WORKERS):
                self._start(
                    worker
                    + shared
                    + ["--name", f"w{number}", "--nthreads", str(THREADS), "--memory-limit", "4GB"]
                    + ["--no-nanny", "--death-timeout", "60", "--local-directory", self.directory]
                )
            self.client = Client(scheduler_file=file, timeout=START_SECONDS)
            self.client.wait_for_workers(WORKERS, timeout=START_SECONDS)
        except BaseException:
            self.stop()
            raise

    def _start(self, command):
        self.children.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log))

    def healthy(self):
        """Whether every process runs, every worker is registered, and the client is connected."""
        if self.client.status != "running" or any(child.poll() is not None for child in self.children):
            return False
        try:
            return len(self.client.sync(self.client.scheduler.ncores_running, callback_timeout=10)) == WORKERS
        except Exception:
            return False

    def told(self):
        """The last lines that the processes wrote."""
        with open(self.log.name, "rb") as file:
            return file.read()[-4000:].decode(errors="replace")

    def stop(self):
        if self.client is not None:
            try:
                self.client.close(timeout=5)
            except Exception:
                pass
        for child in reversed(self.children):
            child.terminate()
        for child in reversed(self.children):
            try:
                child.wait(10)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        self.log.close()
        shutil.rmtree(self.directory, ignore_errors=True)
