"""`dask-scheduler --jupyter`: JupyterLab at the scheduler's port, and notebooks that find the cluster by themselves."""

import asyncio
import contextlib
import http.cookiejar
import json
import os
import re
import subprocess
import time
import urllib.error
import urllib.request
import uuid

import pytest
from dask_rs import find_binary
from tornado.httpclient import HTTPRequest
from tornado.websocket import websocket_connect
from waiting import DEADLINE, eventually


class Started:
    """A program with a log in a file."""

    def __init__(self, log, name, *options):
        self.log = log
        # Its own settings, not those of whoever runs this.
        own = {"JUPYTER_CONFIG_DIR": str(log.parent / "config"), "JUPYTER_DATA_DIR": str(log.parent / "data")}
        own["JUPYTER_RUNTIME_DIR"] = str(log.parent / "runtime")
        command = [find_binary(name), *options, "--host", "127.0.0.1", "--dashboard-address", "127.0.0.1:0"]
        with log.open("w") as said:
            self.process = subprocess.Popen(command, stderr=said, env={**os.environ, **own}, cwd=log.parent)

    def said(self, pattern):
        """What the log says there."""

        def found():
            assert self.process.poll() is None or re.search(pattern, self.log.read_text()), self.log.read_text()
            return re.search(pattern, self.log.read_text())

        eventually(found, f"{pattern} in {self.log}")
        return found().group(1)

    def end(self):
        self.process.terminate()
        self.process.wait(DEADLINE)


class Pages:
    """A browser without a screen: it keeps cookies, and answers for them."""

    def __init__(self, base):
        self.base, self.cookies = base, http.cookiejar.CookieJar()
        self.opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(self.cookies))

    def __call__(self, path, data=None):
        headers = {"X-XSRFToken": cookie.value for cookie in self.cookies if cookie.name == "_xsrf"}
        body = None if data is None else json.dumps(data).encode()
        with self.opener.open(urllib.request.Request(self.base + path, body, headers), timeout=DEADLINE) as answer:
            return answer.read().decode()


@pytest.fixture
def start(tmp_path):
    with contextlib.ExitStack() as stack:

        def start(name, *options):
            started = Started(tmp_path / f"{name}.log", name, *options)
            stack.callback(started.end)
            return started

        yield start


def start_scheduler(start, *options):
    scheduler = start("dask-scheduler", "--jupyter", "--port", "0", *options)
    return scheduler, Pages(scheduler.said(r"Jupyter at: +(http://\S+)"))


async def result_of(code, pages, kernel):
    """What a kernel says that a piece of code makes."""
    url = f"{pages.base.replace('http', 'ws', 1)}api/kernels/{kernel}/channels"
    cookies = "; ".join(f"{cookie.name}={cookie.value}" for cookie in pages.cookies)
    channels = await websocket_connect(HTTPRequest(url, headers={"Cookie": cookies}))
    header = {"msg_id": uuid.uuid4().hex, "msg_type": "execute_request", "session": "s", "username": "", "version": "5.3"}
    content = {"code": code, "silent": False, "store_history": False, "user_expressions": {}, "allow_stdin": False}
    asked = {"header": header, "parent_header": {}, "metadata": {}, "content": content, "channel": "shell"}
    await channels.write_message(json.dumps(asked))
    while True:
        said = json.loads(await asyncio.wait_for(channels.read_message(), DEADLINE))
        if said["parent_header"].get("msg_id") == header["msg_id"]:
            if said["msg_type"] == "execute_result":
                return said["content"]["data"]["text/plain"]
            assert said["msg_type"] != "error", said["content"]


def test_a_notebook_of_the_scheduler_uses_its_cluster(start):
    scheduler, pages = start_scheduler(start)
    address = scheduler.said(r"Scheduler at: +(\S+)")
    start("dask-worker", address, "--nthreads", "1", "--no-nanny").said(r"(Registered to)")
    assert "JupyterLab" in pages("lab")
    kernel = json.loads(pages("api/kernels", {"name": "python3"}))["id"]
    code = "import os; from distributed import Client; c = Client(); os.getpid(), c.scheduler.address, c.submit(sum, (1, 2)).result()"
    pid, known, total = eval(asyncio.run(result_of(code, pages, kernel)))
    assert (known, total) == (address, 3)
    # The scheduler's own pages stay what they are.
    with urllib.request.urlopen(pages.base.replace("jupyter/", "health"), timeout=DEADLINE) as answer:
        assert answer.read() == b"ok"
    scheduler.end()
    assert scheduler.process.returncode == 0
    eventually(lambda: not os.path.exists(f"/proc/{pid}"), "the end of the kernel")


def test_the_scheduler_closes_when_jupyter_is_shut_down(start):
    scheduler, pages = start_scheduler(start, "--dashboard-prefix", "user/ada")
    assert pages.base.endswith("/user/ada/jupyter/")
    pages("lab")
    pages("api/shutdown", {})
    assert scheduler.process.wait(DEADLINE) == 0
    assert "Reason: jupyter-requested-shutdown" in scheduler.log.read_text()


def test_an_idle_scheduler_stays_while_its_jupyter_is_used(start):
    scheduler, pages = start_scheduler(start, "--idle-timeout", "4s")
    begun = time.monotonic()
    while time.monotonic() < begun + 8:
        pages("api/kernels")
        time.sleep(0.5)
    assert scheduler.process.poll() is None
    assert scheduler.process.wait(DEADLINE) == 0
    assert "Scheduler closing after being idle" in scheduler.log.read_text()


def test_a_jupyter_that_died_is_said_to_be_gone(start):
    scheduler, pages = start_scheduler(start)
    (jupyter,) = [pid for pid in children(scheduler.process.pid) if "dask_rs_scheduler.jupyter" in command_of(pid)]
    os.kill(jupyter, 9)
    scheduler.said(r"(The Jupyter server ended \(signal: 9)")
    with pytest.raises(urllib.error.HTTPError, match="502") as refused:
        pages("api")
    assert "does not answer" in refused.value.read().decode()


def children(pid):
    found = []
    for thread in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{thread}/children") as listed:
            found += [int(child) for child in listed.read().split()]
    return found


def command_of(pid):
    with open(f"/proc/{pid}/cmdline") as command:
        return command.read()
