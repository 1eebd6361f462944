"""``python -m dask_rs.gateway``: dask-rs's scheduler for dask-gateway, as its ``scheduler_cmd``::

    c.ClusterConfig.scheduler_cmd = ["/path/to/python", "-m", "dask_rs.gateway"]
    c.ClusterConfig.worker_cmd = ["/path/to/dask-worker"]

dask-gateway gives its schedulers a preload module that runs inside Python's scheduler. Here this process does what that module
does, from outside: it starts ``dask-scheduler``, takes the gateway's wishes (how many workers, adaptive or not) on an HTTP
address, and tells the gateway which workers there are and which may go.
"""

import argparse
import asyncio
import json
import logging
import os
import signal
import sys
from collections import deque

from distributed.comm.addressing import parse_host_port
from distributed.core import rpc
from distributed.security import Security
from tornado.httpclient import AsyncHTTPClient, HTTPRequest
from tornado.web import Application, HTTPError, RequestHandler

from dask_rs.processes import Scheduler, _Program

logger = logging.getLogger("dask_rs.gateway")

PRELOAD = "dask_gateway.scheduler_preload"
# Seconds between two looks at the scheduler's workers.
LOOK_INTERVAL = 0.5
# Seconds that changes of the workers are collected before the gateway is told of them.
CHANGE_DELAY = 3.0
# Seconds of work for which adaptive scaling wants workers; how many of its last targets it goes by when there are too many.
TARGET_DURATION = "5s"
ADAPTIVE_WINDOW = 3
# Seconds before a message to the gateway is sent again; doubled up to the longest.
RETRY_MIN, RETRY_MAX = 0.25, 15.0


class GatewayScheduler(Scheduler):
    """The scheduler's process, with options as they came."""

    def __init__(self, options, security):
        _Program.__init__(self, options, {}, security)


class Gateway:
    """The gateway's own API."""

    def __init__(self, url, cluster, token):
        self.url = f"{url}/v1/clusters/{cluster}"
        self.token = token

    @classmethod
    def from_environment(cls):
        url, cluster, token = (_variable(f"DASK_GATEWAY_{name}") for name in ("API_URL", "CLUSTER_NAME", "API_TOKEN"))
        if "/" in token:
            with open(token) as file:
                token = file.read().strip()
        return cls(url, cluster, token)

    async def _send(self, method, url, body=None):
        headers = {"Authorization": f"token {self.token}", "Content-type": "application/json"}
        await AsyncHTTPClient().fetch(HTTPRequest(url, method=method, headers=headers, body=body))

    async def heartbeat(self, message):
        await self._send("POST", f"{self.url}/heartbeat", json.dumps(message))

    async def shut_down(self):
        await self._send("DELETE", self.url)


class Service:
    """What the gateway wants of one cluster, and what there is."""

    def __init__(self, scheduler, connection_args, gateway, heartbeat_period, adaptive_period):
        self.scheduler = scheduler
        self.address = scheduler.address
        self.comm = rpc(scheduler.address, connection_args=connection_args)
        self.gateway = gateway
        self.heartbeat_period = heartbeat_period or 3600.0
        self.adaptive_period = adaptive_period
        self.count = 0
        self.active, self.closing, self.closed = set(), set(), set()
        self.dashboard_address = self.api_address = ""
        self.news = asyncio.Event()
        self.adapting = None
        self.server = None

    async def listen(self, host, port):
        """Serves the gateway's wishes; returns when that works and the scheduler has told of itself."""
        self.server = Application(
            [("/api/comm", Wishes, {"service": self}), ("/api/health", Health)]
        ).listen(port, address=host)
        (bound, *_) = self.server._sockets.values()
        own_host = parse_host_port(self.address.split("://")[1])[0]
        self.api_address = f"http://{own_host}:{bound.getsockname()[1]}"
        identity = await self.comm.identity()
        if "dashboard" in identity["services"]:
            self.dashboard_address = f"http://{own_host}:{identity['services']['dashboard']}"

    async def look(self):
        """Follows which workers there are."""
        while True:
            identity = await self.comm.identity()
            there = {str(worker["name"]) for worker in identity["workers"].values()}
            gone = self.active - there
            if gone or there - self.active:
                self.active = there
                self.closed = (self.closed | gone) - there
                self.closing -= gone | (there & self.closing if len(there) <= self.count else set())
                asyncio.get_running_loop().call_later(CHANGE_DELAY, self.news.set)
            await asyncio.sleep(LOOK_INTERVAL)

    async def talk(self):
        """Tells the gateway: now, when something changes, and once per period."""
        retry = RETRY_MIN
        while True:
            self.news.clear()
            try:
                await self.heartbeat()
            except Exception as error:
                logger.warning("The gateway could not be told of this cluster, trying again in %s s: %s", retry, error)
                await asyncio.sleep(retry)
                retry = min(2 * retry, RETRY_MAX)
                continue
            retry = RETRY_MIN
            try:
                await asyncio.wait_for(self.news.wait(), self.heartbeat_period)
            except asyncio.TimeoutError:
                pass

    async def heartbeat(self):
        closing = []
        if self.count < len(self.active):
            closing = [str(name) for name in await self.comm.workers_to_close(target=self.count, attribute="name")]
        await self.gateway.heartbeat(
            {
                "scheduler_address": self.address,
                "dashboard_address": self.dashboard_address,
                "api_address": self.api_address,
                "count": self.count,
                "active_workers": sorted(self.active.difference(closing)),
                "closing_workers": closing,
                "closed_workers": sorted(self.closed),
            }
        )
        if closing:
            self.closing.update(closing)
            await self.comm.retire_workers(names=closing, remove=True, close_workers=True)

    def scale(self, count):
        if count != self.count:
            logger.info("Requesting scale to %s workers from %s", count, self.count)
            self.count = count
            self.news.set()

    def adapt(self, minimum, maximum, active):
        if self.adapting is not None:
            self.adapting.cancel()
            self.adapting = None
        if active:
            self.adapting = asyncio.ensure_future(self._adapt(minimum, maximum))

    async def _adapt(self, minimum, maximum):
        targets = deque(maxlen=ADAPTIVE_WINDOW)
        while True:
            target = await self.comm.adaptive_target(target_duration=TARGET_DURATION)
            target = max(target, minimum or 0)
            targets.append(target if maximum is None else min(target, maximum))
            if targets[-1] > self.count:
                self.scale(targets[-1])
            elif max(targets) < self.count:
                self.scale(max(targets))
            await asyncio.sleep(self.adaptive_period)


class Wishes(RequestHandler):
    """``POST /api/comm``: scale to a number, or adapt between two."""

    def initialize(self, service):
        self.service = service

    def post(self):
        if self.request.headers.get("Authorization") != f"token {self.service.gateway.token}":
            raise HTTPError(403)
        try:
            message = json.loads(self.request.body)
        except ValueError:
            raise HTTPError(422, reason="not JSON") from None
        match message:
            case {"op": "scale", **rest}:
                self.service.adapt(None, None, active=False)
                self.service.scale(int(rest.get("count", 0)))
            case {"op": "adapt", **rest}:
                self.service.adapt(rest.get("minimum"), rest.get("maximum"), rest.get("active", True))
            case _:
                raise HTTPError(422, reason="op must be scale or adapt")


class Health(RequestHandler):
    def get(self):
        self.set_status(200)


def _variable(name):
    text = os.environ.get(name)
    if not text:
        sys.exit(f"Error: the environment variable {name} is missing; dask-gateway sets it")
    return text


def parse(argv):
    """What is for this process, and the scheduler's options."""
    parser = argparse.ArgumentParser(prog="python -m dask_rs.gateway", allow_abbrev=False)
    parser.add_argument("--dg-api-address", default=":0")
    parser.add_argument("--dg-heartbeat-period", type=float, default=15.0)
    parser.add_argument("--dg-adaptive-period", type=float, default=3.0)
    parser.add_argument("--dg-idle-timeout", type=float, default=0.0)
    parser.add_argument("--preload", action="append", default=[])
    given, options = parser.parse_known_args(argv)
    options += [part for module in given.preload if module != PRELOAD for part in ("--preload", module)]
    if given.dg_idle_timeout > 0:
        options += ["--idle-timeout", f"{given.dg_idle_timeout}s"]
    return given, options


async def serve(given, options):
    gateway = Gateway.from_environment()
    security = Security()
    loop = asyncio.get_running_loop()
    told_to_end = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, told_to_end.set)
    scheduler = await GatewayScheduler(options, security)
    host, port = parse_host_port(given.dg_api_address, 0)
    service = Service(
        scheduler, security.get_connection_args("scheduler"), gateway, given.dg_heartbeat_period, given.dg_adaptive_period
    )
    await service.listen(host, port)
    tasks = [asyncio.ensure_future(each) for each in (service.look(), service.talk(), told_to_end.wait())]
    ended = asyncio.ensure_future(scheduler.finished())
    await asyncio.wait([ended, *tasks], return_when=asyncio.FIRST_COMPLETED)
    if ended.done() and not told_to_end.is_set():
        # It was idle for long enough, or died: either way the cluster is over.
        await gateway.shut_down()
    for task in tasks:
        task.cancel()
    await scheduler.close()


def main():
    logging.basicConfig(level=logging.INFO, format="%(asctime)s - %(name)s - %(levelname)s - %(message)s")
    given, options = parse(sys.argv[1:])
    asyncio.run(serve(given, options))


if __name__ == "__main__":
    main()
