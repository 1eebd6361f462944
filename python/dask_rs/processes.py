"""dask-rs's scheduler and workers as processes of a `SpecCluster`."""

import asyncio
import contextlib
import logging
import os
import re
import signal
import sys
from collections import deque

from distributed.core import Status
from distributed.deploy.spec import ProcessInterface

from dask_rs import _follow
from dask_rs.binaries import find_binary
from dask_rs.options import NANNY, SCHEDULER, WORKER, arguments
from dask_rs.security import options as security_options

logger = logging.getLogger(__name__)

# Seconds until a process has to say that it is up.
START_TIMEOUT = 60
# Seconds that a process which was told to close may take before it is killed.
CLOSE_TIMEOUT = 15
# Lines of a process that are kept, and how many of them an error shows.
LINES_KEPT = 1000
LINES_SHOWN = 20
# Longest line, in bytes; a longer one comes in parts.
LINE_MAX = 2**20

_LEVEL = re.compile(r" - (DEBUG|INFO|WARNING|ERROR|CRITICAL) - ")


class _Program(ProcessInterface):
    """One process of ours: a new session (so that a Ctrl-C of the terminal does not reach it), gone when this one goes."""

    program = None
    # What a line says when the process is up.
    up = None

    def __init__(self, options, variables, security=None, silence_logs=None, name=None):
        super().__init__(name=name)
        self.name = name
        self.process = None
        self._certificates = contextlib.ExitStack()
        self._options = options + security_options(security, self.role, self._certificates)
        self._variables = variables
        self._shown_from = silence_logs if isinstance(silence_logs, int) and silence_logs else logging.NOTSET
        self._lines = deque(maxlen=LINES_KEPT)
        self._reader = None

    async def start(self):
        path = find_binary(self.program)
        environment = {"DASK_PYTHON": sys.executable, **os.environ, **self._variables}
        command = [sys.executable, "-I", "-S", _follow.__file__, str(os.getpid()), path, *self._options]
        self.process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE, env=environment,
            start_new_session=True, limit=LINE_MAX,
        )  # fmt: skip
        up = asyncio.get_running_loop().create_future()
        self._reader = asyncio.ensure_future(self._read(up))
        try:
            line = await asyncio.wait_for(up, START_TIMEOUT)
        except asyncio.TimeoutError:
            await self._end()
            raise RuntimeError(f"{self._who()} did not start within {START_TIMEOUT} s{self._said()}") from None
        if line is None:
            await self._end()
            raise RuntimeError(f"{self._who()} ended with status {self.process.returncode}{self._said()}")
        self.on_up(line)
        await super().start()

    def on_up(self, line):
        """Takes what the line says by which the process is up."""

    async def _read(self, up):
        """Keeps the process's lines and shows those that are loud enough."""
        while True:
            try:
                line = await self.process.stderr.readuntil(b"\n")
            except asyncio.LimitOverrunError:
                line = await self.process.stderr.read(LINE_MAX)
            except asyncio.IncompleteReadError as end:
                line = end.partial
            if not line:
                break
            text = line.decode(errors="replace").rstrip("\n")
            self._lines.append(text)
            level = _LEVEL.search(text)
            if level is None or logging.getLevelName(level[1]) >= self._shown_from:
                print(text, file=sys.stderr, flush=True)
            if self.up in text and not up.done():
                up.set_result(text)
        await self.process.wait()
        if not up.done():
            up.set_result(None)
        elif self.status == Status.running:
            await super().close()

    async def close(self):
        if self.status == Status.closed:
            return
        await self._end()
        await super().close()

    async def _end(self):
        """Asks the process to end, and kills it and what it started when it does not."""
        if self.process is not None and self._reader is not None:
            self._signal(signal.SIGINT)
            # The reader ends when the process has, and nobody holds its stderr.
            _, running = await asyncio.wait([self._reader], timeout=CLOSE_TIMEOUT)
            if running:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self.process.pid, signal.SIGKILL)
                self._reader.cancel()
                await self.process.wait()
        self._certificates.close()

    def _signal(self, number):
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(number)

    def logs(self):
        """The last lines that the process wrote to its stderr."""
        return list(self._lines)

    def _who(self):
        return self.program if self.name is None else f"{self.program} {self.name!r}"

    def _said(self):
        lines = list(self._lines)[-LINES_SHOWN:]
        return ":\n" + "\n".join(lines) if lines else " and said nothing"


class Scheduler(_Program):
    """dask-rs's scheduler in a process of its own; takes the keywords of ``distributed.Scheduler`` that have a meaning there."""

    program = "dask-scheduler"
    role = "scheduler"
    up = "Scheduler at:"

    def __init__(self, security=None, silence_logs=None, **keywords):
        options, variables = arguments(SCHEDULER, keywords)
        super().__init__(options, variables, security, silence_logs)

    def on_up(self, line):
        self.address = line.split(self.up, 1)[1].strip()


class Nanny(_Program):
    """dask-rs's worker under its nanny; takes the keywords of ``distributed.Nanny`` and ``Worker`` that have a meaning there."""

    program = "dask-worker"
    role = "worker"
    up = "Registered to:"
    kind = NANNY

    def __init__(self, scheduler, name=None, security=None, silence_logs=None, **keywords):
        options, variables = arguments(self.kind, {"name": name, **keywords})
        # Before the options: what comes after "--" is for preload modules.
        super().__init__([scheduler, *options], variables, security, silence_logs, name)


class Worker(Nanny):
    """dask-rs's worker without a nanny."""

    kind = WORKER
