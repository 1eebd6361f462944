"""The dashboard as people see it, in a headless Chromium.

Run by `.ci/run browser`. With DASK_TEST_SCREENSHOTS it writes pictures of the pages into that directory.
"""

import os
import random
import re
import shutil
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from distributed import wait
from playwright.sync_api import sync_playwright
from waiting import RESULT_TIMEOUT, eventually

CHROMIUM = next(filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome"])), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="NOT RUN: there is no Chromium here")

SCREENSHOTS = os.environ.get("DASK_TEST_SCREENSHOTS")
PAGES = ["status", "workers", "tasks", "memory", "graph", "groups", "map", "system", "profile", "events"]
# The cluster of this test is started with it.
PREFIX = "user/ada"


def add_numbers(n):
    time.sleep(0.4)
    return sum(range(n))


def load(i):
    time.sleep(0.05)
    return b"x" * 400_000


def clean(data):
    time.sleep(0.08)
    return data[:100_000]


def total(parts):
    time.sleep(0.15)
    return sum(map(len, parts))


def score(x):
    until = time.monotonic() + random.random() * 0.06
    while time.monotonic() < until:
        x = (x * 31 + 7) % 1_000_003
    return x


def inc(x):
    return x + 1


def fail(x):
    raise ValueError(f"no such file: {x}")


@pytest.fixture(scope="session")
def browser():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def dashboard(client):
    port = client.scheduler_info()["services"]["dashboard"]
    return f"http://127.0.0.1:{port}/"


class Watched:
    """A page, with what went wrong on it and what it asked for."""

    def __init__(self, browser, scheme="light"):
        self.page = browser.new_page(viewport={"width": 1360, "height": 860}, color_scheme=scheme)
        self.page.set_default_timeout(RESULT_TIMEOUT * 1000)
        self.wrong, self.asked = [], []
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("console", lambda said: said.type == "error" and self.wrong.append(said.text))
        self.page.on("request", lambda request: self.asked.append(request.url))

    def goto(self, address):
        assert self.page.goto(address).ok, address

    def live(self):
        self.until("document.getElementById('pulse').textContent.startsWith('live')")

    def until(self, condition):
        """Waits from out here: the pages allow no code that is made of text."""
        eventually(lambda: self.page.evaluate(condition), condition)

    def text(self, selector):
        return self.page.inner_text(selector)

    def picture(self, name):
        if SCREENSHOTS:
            Path(SCREENSHOTS).mkdir(parents=True, exist_ok=True)
            # Thousands of thin lines are smaller as a JPEG.
            kind = {"type": "jpeg", "quality": 60} if name == "graph" else {}
            self.page.screenshot(path=str(Path(SCREENSHOTS) / f"{name}.{'jpg' if kind else 'png'}"), **kind)

    def drawn(self, panel):
        """How many different colours a panel's canvas has."""
        return self.page.evaluate(
            """(panel) => {
                const canvas = document.querySelector(`#${panel} canvas`);
                const pixels = new Uint32Array(canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data.buffer);
                return new Set(pixels).size;
            }""",
            panel,
        )

    def finds(self, panel, text):
        """Whether the pointer, moved over a panel, comes to a place whose hint tells of `text`."""
        return self.page.evaluate(
            """([panel, text]) => {
                const canvas = document.querySelector(`#${panel} canvas`);
                const box = canvas.getBoundingClientRect();
                for (let y = 5; y < box.height; y += 9) {
                    for (let x = 5; x < box.width; x += 5) {
                        canvas.dispatchEvent(new PointerEvent('pointermove', { clientX: box.left + x, clientY: box.top + y }));
                        if (document.getElementById('tip').textContent.includes(text)) return true;
                    }
                }
                return false;
            }""",
            [panel, text],
        )


@pytest.fixture
def watched(browser):
    made = []

    def make(scheme="light"):
        made.append(Watched(browser, scheme))
        return made[-1]

    yield make
    for page in made:
        page.page.close()
    for page in made:
        assert page.wrong == []


def test_the_walkthrough_of_a_first_task(client, dashboard, watched):
    seen = watched()
    seen.goto(dashboard)
    assert seen.page.url.endswith("/status")
    seen.live()
    future = client.submit(add_numbers, 1000)
    assert future.result() == 499500

    seen.until("/^[1-9]/.test(document.querySelector('#task-stream small').textContent)")
    eventually(lambda: seen.finds("task-stream", "add_numbers"), "its block")
    seen.until("document.querySelector('#progress').textContent.includes('add_numbers')")

    seen.goto(dashboard + "individual-memory-by-key")
    eventually(lambda: seen.finds("memory-by-key", "add_numbers"), "its memory")
    seen.goto(dashboard + "graph")
    seen.live()
    eventually(lambda: seen.finds("graph", future.key), "its node")

    seen.page.click("nav >> text=Info")
    assert seen.page.url.endswith("/info/main/workers.html")
    holder = next(iter(client.who_has(future)[future.key]))
    seen.page.click(f"text={holder}")
    assert seen.page.url.endswith(".html") and "/info/worker/" in seen.page.url
    seen.page.click(f"text={future.key}")
    assert "/info/task/" in seen.page.url
    story = seen.text("#story")
    assert "processing" in story and "memory" in story
    assert holder in seen.text("main")
    assert future.key in seen.text("#explanation")


def test_pages_under_load_in_light_and_dark(client, dashboard, watched):
    loaded = client.map(load, range(60))
    cleaned = client.map(clean, loaded)
    sums = [client.submit(total, cleaned[i : i + 6]) for i in range(0, 60, 6)]
    joined = client.submit(total, [cleaned[0], cleaned[-1]])
    scores = client.map(score, range(400))
    failed = client.submit(fail, "data.csv")
    backgrounds = set()
    for scheme in ["light", "dark"]:
        seen = watched(scheme)
        seen.goto(dashboard + "status")
        seen.live()
        seen.until("/^[1-9]/.test(document.querySelector('#task-stream small').textContent)")
        backgrounds.add(seen.page.evaluate("getComputedStyle(document.body).backgroundColor"))
        eventually(lambda: seen.drawn("task-stream") > 4, "a task stream with colours")
        seen.page.wait_for_timeout(1500)
        seen.picture(f"status-{scheme}")
        wait([*sums, *scores, joined, failed], timeout=RESULT_TIMEOUT)
        # The button turns it round, and the next page remembers.
        before = seen.page.evaluate("getComputedStyle(document.body).backgroundColor")
        seen.page.click("#theme")
        assert seen.page.evaluate("getComputedStyle(document.body).backgroundColor") != before
        seen.page.click("#theme")
    assert len(backgrounds) == 2
    seen = watched()
    for page in PAGES:
        seen.goto(dashboard + page)
        seen.live()
        assert seen.page.locator("section.panel").count() >= 2
        if page in ("graph", "groups"):
            eventually(lambda: seen.drawn(page) > 3, f"a picture of {page}")
        if page in ("graph", "groups", "map", "workers", "system", "profile"):
            seen.page.wait_for_timeout(2500)
            seen.picture(page)
    seen.goto(f"{dashboard}info/task/{failed.key}.html")
    assert "no such file: data.csv" in seen.text("main")
    seen.picture("task")
    seen.goto(dashboard + "info/main/exceptions.html")
    assert "no such file: data.csv" in seen.text("main")
    del loaded, cleaned, sums, scores, joined, failed


def test_every_plot_of_the_jupyterlab_extension_opens(client, dashboard, watched):
    import json

    with urllib.request.urlopen(dashboard + "individual-plots.json") as answer:
        plots = json.load(answer)
    assert {"Individual Task Stream", "Individual Progress", "Individual Cluster Map"} <= set(plots)
    seen = watched()
    for name, path in plots.items():
        seen.goto(dashboard + path.lstrip("/"))
        seen.page.wait_for_selector("section.panel")
        assert seen.page.locator("header").count() == 0, name


class Stripping(BaseHTTPRequestHandler):
    """A proxy that takes a path of its own off every request, as ingresses and jupyter-server-proxy do."""

    target = ""

    def do_GET(self):
        path = self.path.removeprefix("/cluster-1_9001/")
        assert path != self.path, f"a link left the proxy: {self.path}"
        request = urllib.request.Request(self.target + path)
        opener = urllib.request.build_opener(NoRedirect)
        try:
            answer = opener.open(request)
        except urllib.error.HTTPError as error:
            answer = error
        body = answer.read()
        self.send_response(answer.status)
        for name in ("Content-Type", "Location"):
            if answer.headers[name]:
                self.send_header(name, answer.headers[name])
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


class NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args):
        return None


@pytest.mark.parametrize("strips", [False, True])
def test_all_links_stay_below_the_prefix(client, dashboard, watched, strips):
    server = None
    if strips:
        server = ThreadingHTTPServer(("127.0.0.1", 0), type("To", (Stripping,), {"target": dashboard}))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        top = f"http://127.0.0.1:{server.server_port}/cluster-1_9001/"
    else:
        top = f"{dashboard}{PREFIX}/"
    seen = watched()
    seen.goto(top)
    assert seen.page.url == top + "status"
    seen.live()
    seen.page.click("nav >> text=Workers")
    seen.live()
    seen.page.click("#workers table a")
    assert seen.page.url.startswith(top + "info/worker/")
    seen.page.click("text=through this scheduler")
    assert "/proxy/" in seen.page.url
    seen.page.wait_for_selector("text=Dask worker")
    assert [url for url in seen.asked if not url.startswith(top)] == []
    if server:
        server.shutdown()


def test_a_hundred_thousand_tasks(client, dashboard, watched):
    def run():
        began = time.monotonic()
        futures = client.map(inc, range(100_000), pure=False)
        wait(futures, timeout=10 * RESULT_TIMEOUT)
        return time.monotonic() - began, futures

    unseen, futures = run()
    del futures
    eventually(lambda: not client.processing() or not any(client.processing().values()))
    seen = watched()
    seen.goto(dashboard + "status")
    seen.live()
    shown = lambda: seen.text("#task-stream small")
    before = tasks_of(shown())
    seen.page.evaluate(
        """() => {
            window.longestGap = 0;
            let last = performance.now();
            const turn = (now) => { window.longestGap = Math.max(window.longestGap, now - last); last = now; requestAnimationFrame(turn); };
            requestAnimationFrame(turn);
        }"""
    )
    result = {}
    runner = threading.Thread(target=lambda: result.update(zip(["took", "futures"], run())))
    runner.start()
    while runner.is_alive():
        seen.page.wait_for_timeout(500)
    runner.join()
    seen.picture("hundred-thousand")
    seen.until("document.querySelector('#progress').textContent.includes('100,000 / 100,000')")
    # What is not drawn is counted; nothing is lost without a word.
    eventually(lambda: tasks_of(shown()) - before >= 100_000 or "not shown" in shown(), "all tasks in the stream")
    gap = seen.page.evaluate("window.longestGap")
    print(f"\n100,000 tasks: {unseen:.1f} s unseen, {result['took']:.1f} s with the page open; {shown()}; "
          f"longest time between two frames {gap:.0f} ms")


def tasks_of(text):
    found = re.match(r"([\d,]+) tasks", text)
    return int(found[1].replace(",", "")) if found else 0
