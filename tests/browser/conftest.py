"""JupyterLab in a real browser. `make test-browser` runs these tests; plain pytest leaves them out.

Lab serves a copy of the notebooks, so nothing that is done in the browser reaches the checkout. Screenshots of every page lie in
build/browser afterwards (FSL_SCREENSHOTS names another folder).
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tools.setup.chromium import find

ROOT = Path(__file__).resolve().parents[2]
SCREENSHOTS = Path(os.environ.get("FSL_SCREENSHOTS") or ROOT / "build" / "browser")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SETTINGS = {
    # Outputs that are scrolled away must be in the page all the same.
    "notebook-extension/tracker": {"windowingMode": "none"},
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "docmanager-extension/plugin": {"autosave": False},
}
KERNEL_IS_READY = """async () => {
    const session = jupyterapp.shell.currentWidget.sessionContext;
    await session.ready;
    await session.session.kernel.info;
}"""
RUN_ALL = "async () => { await jupyterapp.commands.execute('notebook:run-all-cells') }"
BAD_OUTPUTS = """() => [...document.querySelectorAll(
    '.jp-OutputArea-output[data-mime-type="application/vnd.jupyter.error"], ' +
    '.jp-OutputArea-output[data-mime-type="application/vnd.jupyter.stderr"]')].map(e => e.innerText)"""
NO_ALT = """() => [...document.querySelectorAll('.jp-OutputArea img')]
    .filter(e => !(e.alt || '').trim()).map(e => e.outerHTML.slice(0, 120))"""


@dataclass
class Lab:
    """A running JupyterLab: its address, and the folder that it serves (with notebooks/ in it)."""

    url: str
    folder: Path


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    base = tmp_path_factory.mktemp("lab")
    folder = base / "course"
    for name in ("notebooks", "solutions", "docs/diagrams"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    for name, content in SETTINGS.items():
        path = base / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    private = {
        "JUPYTERLAB_SETTINGS_DIR": base / "settings",
        "JUPYTERLAB_WORKSPACES_DIR": base / "workspaces",
        "JUPYTER_CONFIG_DIR": base / "config",
        "JUPYTER_RUNTIME_DIR": base / "runtime",
        "IPYTHONDIR": base / "ipython",
        "FSL_PROGRESS": base / "progress.json",
    }
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={port}", "--ip=127.0.0.1"]
    command += ["--IdentityProvider.token=", "--LabApp.expose_app_in_browser=True"]
    with open(base / "lab.log", "w") as log:
        environment = os.environ | {name: str(path) for name, path in private.items()}
        environment |= {"PYTHONPATH": str(ROOT / "tools" / "notebooks" / "offline"), "OMP_NUM_THREADS": "2"}
        server = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for(url + "/api", server, base / "lab.log")
        yield Lab(url, folder)
    finally:
        server.terminate()
        server.wait(30)


def wait_for(address: str, server: subprocess.Popen[bytes], log: Path) -> None:
    """Until the server answers; AssertionError with its log when it ends, or after a minute."""
    for _ in range(120):
        assert server.poll() is None, log.read_text()
        with suppress(OSError):
            urllib.request.urlopen(address, timeout=5).close()
            return
        time.sleep(0.5)
    raise AssertionError(f"JupyterLab did not answer within a minute:\n{log.read_text()}")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    path = find()
    if path is None:
        pytest.skip("no Chromium here: `python -m tools.setup.chromium` says how to get one")
    with sync_playwright() as play:
        opened = play.chromium.launch(executable_path=path, args=FLAGS)
        yield opened
        opened.close()


Opener = Callable[[str], Page]


@pytest.fixture
def open_notebook(lab: Lab, browser: Browser) -> Iterator[Opener]:
    """Opens "notebooks/00_start.ipynb" in Lab, ready to run. Its kernel is ended afterwards: 2 cores do not feed two."""
    pages: list[Page] = []

    def opener(path: str) -> Page:
        page = browser.new_page(viewport={"width": 1300, "height": 1000}, accept_downloads=True)
        page.set_default_timeout(60_000)
        pages.append(page)
        page.goto(f"{lab.url}/lab/tree/{path}?reset")
        page.wait_for_selector(".jp-Notebook .jp-Cell")
        page.evaluate(KERNEL_IS_READY)
        return page

    yield opener
    for page in pages:
        page.evaluate("async () => { await jupyterapp.serviceManager.sessions.shutdownAll() }")
        page.close()


@pytest.fixture
def scratch_notebook(lab: Lab, open_notebook: Opener) -> Callable[[str, str], Page]:
    """scratch_notebook(name, code): a notebook with this one cell, opened and run."""

    def run(name: str, code: str) -> Page:
        kernel = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}  # or Lab asks which
        cell = nbformat.v4.new_code_cell(code)
        notebook = nbformat.v4.new_notebook(cells=[cell], metadata={"kernelspec": kernel})
        nbformat.write(notebook, lab.folder / "notebooks" / f"{name}.ipynb")
        page = open_notebook(f"notebooks/{name}.ipynb")
        run_all(page)
        return page

    return run


def run_all(page: Page) -> None:
    """Run every cell; AssertionError for errors, warnings and pictures without alt text."""
    page.evaluate(RUN_ALL)
    page.wait_for_timeout(500)
    assert page.evaluate(BAD_OUTPUTS) == []
    assert page.evaluate(NO_ALT) == []


def screenshot(page: Page, name: str, *, whole: bool = False) -> Path:
    """Keep what the page shows. whole: all of the notebook, not only what fits into the window."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    size = page.viewport_size
    if whole:
        height = page.evaluate(
            "() => Math.max(...[...document.querySelectorAll('.jp-NotebookPanel *')].map(e => e.scrollHeight))"
        )
        page.set_viewport_size({"width": size["width"], "height": min(int(height) + 150, 16_000)})
        page.evaluate("() => { for (const e of document.querySelectorAll('.jp-NotebookPanel *')) e.scrollTop = 0 }")
        page.wait_for_timeout(1500)
    path = SCREENSHOTS / f"{name}.png"
    page.screenshot(path=path)
    page.set_viewport_size(size)
    return path
