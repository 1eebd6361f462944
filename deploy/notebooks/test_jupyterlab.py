"""A real JupyterLab with dask's extension in a headless Chromium: it takes our dashboard's address, and shows a pane of it."""

import json
import os
import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request

import pytest
from waiting import DEADLINE, eventually

CHROMIUM = next(filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome"])), None)
# A file for a picture of it.
SCREENSHOT = os.environ.get("DASK_TEST_SCREENSHOT")


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """The address of a JupyterLab that asks for no password."""
    home = tmp_path_factory.mktemp("lab")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}", "--IdentityProvider.token="]
    log = home / "log"
    with open(log, "w") as said:
        command = [sys.executable, "-m", "jupyterlab", *options, f"--notebook-dir={home}"]
        # Its own settings: JupyterLab remembers what was open the last time.
        own = {"JUPYTER_CONFIG_DIR": str(home / "config"), "JUPYTER_DATA_DIR": str(home / "data")}
        process = subprocess.Popen(command, stdout=said, stderr=said, env={**os.environ, **own})
    address = f"http://127.0.0.1:{port}/"

    def answers():
        assert process.poll() is None, log.read_text()
        try:
            return urllib.request.urlopen(address + "api", timeout=5).status == 200
        except (urllib.error.URLError, OSError):
            return False

    try:
        eventually(answers, "JupyterLab's answer")
        yield address
    finally:
        process.terminate()
        process.wait(60)


@pytest.fixture
def dashboard(cluster):
    return cluster.dashboard_link.removesuffix("/status")


@pytest.mark.parametrize("path", ["", "/", "/status"])
def test_the_extensions_server_knows_our_dashboard(lab, dashboard, path):
    url = urllib.parse.quote(dashboard + path, safe="")
    with urllib.request.urlopen(f"{lab}dask/dashboard-check/{url}", timeout=DEADLINE) as answer:
        told = json.load(answer)
    assert told["isActive"], told
    assert told["plots"]["Individual Task Stream"] == "/individual-task-stream"


@pytest.mark.skipif(CHROMIUM is None, reason="NOT RUN: there is no Chromium here")
def test_a_pane_of_the_dashboard_shows_in_jupyterlab(lab, dashboard, cluster):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright, cluster.get_client() as client:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1360, "height": 860})
        page.set_default_timeout(DEADLINE * 1000)
        page.goto(lab + "lab")
        page.get_by_role("tab", name="Dask").click()
        box = page.locator(".dask-DashboardListing, .dask-DaskSidebar").locator("input").first
        box.fill(dashboard)
        box.press("Enter")
        offered = page.locator(".dask-DashboardListing-item")
        eventually(lambda: {"TASK STREAM", "CLUSTER MAP"} <= {name.strip().upper() for name in offered.all_inner_texts()}, "panes")
        page.locator(".dask-DashboardListing-item", has_text="Task Stream").first.click()
        assert client.gather(client.map(lambda n: n + 1, range(20), pure=False)) == list(range(1, 21))
        frame = page.frame_locator("iframe").first
        count = frame.locator("#task-stream small")
        eventually(lambda: count.inner_text()[:1] in "123456789", "the pane tells of tasks")
        if SCREENSHOT:
            page.wait_for_timeout(3000)
            page.screenshot(path=SCREENSHOT)
        browser.close()
