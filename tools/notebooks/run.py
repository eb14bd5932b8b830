"""Runs a notebook as a reader would, measures it, and says what is wrong with its outputs."""

from __future__ import annotations

import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

import psutil
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode

from fsl_course._system import threads
from tools.notebooks.cells import BuildError

OFFLINE = Path(__file__).resolve().parent / "offline"  # its sitecustomize.py closes the network
CORES = min(2, os.cpu_count() or 1)  # what the course promises to need
CELL_TIMEOUT = 300  # seconds; a training cell may take 60
_WIDGET = "application/vnd.jupyter.widget-view+json"
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class Run:
    """What one execution took: wall seconds with the kernel's start, seconds of the slowest cell, and peak memory in MB."""

    seconds: float
    longest_cell_seconds: float
    peak_mb: int


def kernel_environment(root: Path, scratch: Path) -> dict[str, str]:
    """Returns the environment of a lesson's kernel: offline, with this checkout's packages, the same on every machine.

    scratch: an existing folder for what else the kernel writes (the learner's progress, IPython's history).
    """
    inherited = {"MPLBACKEND", "PYTHONWARNINGS", "FSL_DATA"}  # these would change what the outputs show
    environment = {name: value for name, value in os.environ.items() if name not in inherited}
    paths = [str(OFFLINE), str(root), environment.get("PYTHONPATH", "")]
    return environment | {
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
        "PYTHONHASHSEED": "0",
        "OMP_NUM_THREADS": str(CORES),  # sums over another number of threads differ in the last digits
        **threads.SPINNING,
        "CUDA_VISIBLE_DEVICES": "",
        "IPYTHONDIR": str(scratch / "ipython"),
        "FSL_PROGRESS": str(scratch / "progress.json"),
    }


def execute(notebook: NotebookNode, folder: Path, root: Path, where: str) -> Run:
    """Executes all cells in place, with `folder` as working directory. Raises BuildError that names the first failing cell."""
    metadata = notebook.metadata.copy()  # restored below, because execution adds the kernel's exact version of Python
    now = {"cell": notebook.cells[0], "started": 0.0}
    longest, peak = 0.0, 0

    def cell_starts(cell: NotebookNode, **_: object) -> None:
        now.update(cell=cell, started=time.perf_counter())

    def cell_ends(**_: object) -> None:
        nonlocal longest, peak
        longest = max(longest, time.perf_counter() - now["started"])
        peak = max(peak, _peak_bytes(client.km.provisioner.pid))

    client = NotebookClient(
        notebook,
        kernel_name="python3",
        timeout=CELL_TIMEOUT,
        record_timing=False,
        store_widget_state=False,
        extra_arguments=["--log-level=ERROR"],  # silences the kernel's warning about an unencrypted connection
        resources={"metadata": {"path": str(folder)}},
        on_cell_execute=cell_starts,
        on_cell_executed=cell_ends,
    )
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        try:
            client.execute(env=kernel_environment(root, Path(scratch)))
        except CellExecutionError as error:
            line = _failing_line(now["cell"])
            raise BuildError(
                f"{where}, cell {now['cell'].id}: {_first_line(error.ename, error.evalue)}{line}"
            ) from None
        except CellTimeoutError:
            raise BuildError(f"{where}, cell {now['cell'].id}: not finished after {CELL_TIMEOUT} s") from None
        except DeadKernelError:
            raise BuildError(f"{where}, cell {now['cell'].id}: the kernel died (out of memory?)") from None
    seconds = time.perf_counter() - started
    notebook.metadata = metadata
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = _tidy(cell.outputs)
    return Run(seconds, longest, round(peak / 2**20))


def _peak_bytes(pid: int) -> int:
    """Returns the peak resident memory of a process in bytes, or what it holds now where the system records no peak."""
    status = Path(f"/proc/{pid}/status")
    if status.exists() and (found := re.search(r"VmHWM:\s+(\d+) kB", status.read_text(encoding="utf-8"))):
        return int(found[1]) * 1024
    memory = psutil.Process(pid).memory_info()
    return getattr(memory, "peak_wset", memory.rss)


def _first_line(name: str, text: str) -> str:
    """Returns an error in one line, e.g. "ValueError: 3 labels for 4 rows"."""
    lines = _COLOUR.sub("", text).strip().splitlines()
    return f"{name}: {lines[0][:200]}" if lines else name


def _failing_line(cell: NotebookNode) -> str:
    """Returns the line of the cell that its traceback points at, to be appended to a message, or "" if it is unknown."""
    for output in cell.outputs:
        if output.output_type == "error":
            arrows = re.findall(r"^-+> (\d+ .*)$", _COLOUR.sub("", "\n".join(output.traceback)), re.MULTILINE)
            return f"  (line {arrows[0].strip()})" if arrows else ""
    return ""


def _tidy(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Returns outputs as they are stored: pieces of a stream joined, without overwritten progress lines and without widgets.

    How many pieces a stream arrives in is chance. A widget's id is random, and without its kernel a widget shows nothing; its
    static twin stays.
    """
    tidy: list[NotebookNode] = []
    for output in outputs:
        if output.output_type == "stream" and tidy and tidy[-1].get("name") == output.name:
            tidy[-1].text += output.text
        elif _WIDGET not in output.get("data", {}) or "text/html" in output.data:
            output.get("data", {}).pop(_WIDGET, None)
            tidy.append(output)
    for output in tidy:
        if output.output_type == "stream":
            output.text = re.sub(r"[^\n]*\r(?!\n)", "", output.text)  # a carriage return overwrites the line
    return tidy


def output_problems(notebook: NotebookNode, root: Path, where: str) -> list[str]:
    """Returns what may not be stored: errors, warnings, pictures without alt text, paths of this machine, object addresses."""
    private = {str(path) for path in (root, Path.home(), Path(sys.prefix), Path(tempfile.gettempdir()))} - {"/"}
    machine_path = re.compile("(?:" + "|".join(map(re.escape, sorted(private))) + r")(?![\w.-])")
    problems = []
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            for problem in _problems_of(output, cell.metadata.get("tags", []), machine_path):
                problems.append(f"{where}, cell {cell.id}: {problem}")
    return problems


def _problems_of(output: NotebookNode, tags: list[str], machine_path: re.Pattern[str]) -> Iterator[str]:
    if output.output_type == "error":
        yield f"{_first_line(output.ename, output.evalue)} (show an expected error with try/except and print)"
        return
    if output.output_type == "stream":
        if output.name == "stderr" and "stderr-ok" not in tags:
            yield f'output on stderr: "{output.text.strip()[:300]}" (cure it, or tag the cell stderr-ok)'
            return
        texts = [output.text]
    else:
        texts = []
        for mime, content in output.data.items():
            if mime.startswith("image/"):
                if not output.metadata.get(mime, {}).get("alt", "").strip():
                    yield f'{mime} without alt text; use fsl_course.figures.show(fig, alt="...")'
            elif mime == "text/html":
                page = _Page(content)
                texts += page.texts
                yield from page.problems
            elif isinstance(content, str):
                texts.append(content)
                if mime == "text/markdown" and re.search(r"!\[\s*\]\(", content):
                    yield "a markdown picture without alt text"
    for text in texts:
        if found := machine_path.search(text):
            around = text[max(0, found.start() - 30) : found.end() + 30].strip()
            yield f'a path of this machine in the output: "{around}"'
        if found := re.search(r"[^\n<]{0,60} at 0x[0-9a-fA-F]{6,}", text):
            yield f'an object address, different in every run: "{found[0]}" (assign the result, or end the line with ;)'


class _Page(HTMLParser):
    """Parses an HTML output: its texts without embedded pictures, and the pictures that lack a description."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.problems: list[str] = []
        self._undescribed: str | None = None  # the open <svg> for which neither aria-label nor <title> was seen
        self.feed(content)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attributes}
        self.texts += [value for value in given.values() if not value.startswith("data:")]
        if tag == "img" and not given.get("alt", "").strip():
            self.problems.append('an <img> without alt text; use fsl_course.figures.show(fig, alt="...")')
        elif tag == "svg" and not given.get("aria-label", "").strip():
            self._undescribed = "an <svg> without aria-label or <title>"
        elif tag == "title":
            self._undescribed = None

    def handle_endtag(self, tag: str) -> None:
        if tag == "svg" and self._undescribed:
            self.problems.append(self._undescribed)
            self._undescribed = None

    def handle_data(self, data: str) -> None:
        self.texts.append(data)
