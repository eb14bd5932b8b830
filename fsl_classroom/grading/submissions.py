"""Reads what students handed in, FOLDER/STUDENT/*.ipynb, as text. Runs nothing and trusts nothing in a file."""

from __future__ import annotations

import ast
import json
import os
import re
import signal
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LARGEST = 20 * 2**20  # bytes of a notebook; one with all its figures has below 3 MB
# Characters of code in one cell, and in a notebook. Lessons have below 120,000; taking code apart needs 700 bytes for each.
MOST_NOTEBOOKS = 100  # of one student
MOST_OF_A_CELL, MOST_CODE = 100_000, 400_000
_AGAIN = "save it again in Jupyter"
_MARKERS = re.compile(r"^(<<<<<<< |>>>>>>> |=======$)", re.MULTILINE)
_HIDES_THE_CELL = {"bash", "sh", "html", "javascript", "js", "latex", "markdown", "script", "writefile", "file", "svg"}


class Unreadable(Exception):
    """Raised for a notebook that cannot be read. The message says why and what to do."""


@dataclass(frozen=True)
class Submission:
    """One student's folder. refused: why the folder itself cannot be accepted, or ""."""

    student: str
    folder: Path
    notebooks: tuple[Path, ...] = ()
    refused: str = ""


@dataclass(frozen=True)
class Cell:
    """A code cell. number: its place among the code cells, from 1; tree: None if it is no Python, and trouble says why."""

    number: int
    source: str
    tree: ast.Module | None
    trouble: str = ""


def find_submissions(folder: Path) -> list[Submission]:
    """Returns a submission for every folder in `folder`, by name. Skips hidden ones, and refuses links and unreadable ones.

    Raises OSError if `folder` itself cannot be read.
    """
    found = []
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith(".") or not entry.is_dir():
            continue
        if entry.is_symlink():
            inside = entry.resolve().is_relative_to(folder.resolve())
            where = "to another student's folder" if inside else "that leads outside"
            found.append(
                Submission(entry.name, entry, refused=f"the folder is a link {where}: hand in the files themselves")
            )
            continue
        try:
            files = [file for file in entry.iterdir() if file.name.lower().endswith(".ipynb")]
        except OSError as error:
            found.append(
                Submission(entry.name, entry, refused=f"the folder cannot be read ({error.strerror or error})")
            )
            continue
        notebooks = sorted(file for file in files if not file.name.startswith("."))
        if len(notebooks) > MOST_NOTEBOOKS:
            words = (
                f"there are {len(notebooks)} notebooks in the folder, and {MOST_NOTEBOOKS} are the most that are read"
            )
            found.append(Submission(entry.name, entry, refused=words))
            continue
        found.append(Submission(entry.name, entry, tuple(notebooks)))
    return found


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Raises Unreadable if the block takes longer, because a file may be built to take forever. Main thread only."""

    def stop(*_: object) -> None:
        raise Unreadable(f"it cannot be taken apart within {seconds:.0f} seconds")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def read_cells(path: Path) -> list[Cell]:
    """Returns the code cells of a notebook. Raises Unreadable for the file; of a broken cell `trouble` says what is wrong."""
    try:
        notebook = json.loads(_text(path))
    except RecursionError:
        raise Unreadable("its JSON is nested too deeply") from None
    except json.JSONDecodeError as error:
        if _MARKERS.search(_text(path)):
            raise Unreadable("it holds merge conflict markers (<<<<<<<): resolve the conflict first") from None
        raise Unreadable(f"it is no JSON (line {error.lineno}): save it again in Jupyter") from None
    except ValueError:
        raise Unreadable("it holds a number of thousands of digits") from None
    sources = _sources(notebook)
    return [_cell(number, source) for number, source in enumerate(sources, start=1)]


def _text(path: Path) -> str:
    """Returns the text of a notebook. Raises Unreadable for links that lead outside, large files and other kinds of files."""
    try:
        real = path.resolve()
    except (OSError, RuntimeError):  # RuntimeError up to Python 3.12
        raise Unreadable("it is a link that leads to itself") from None
    if not real.is_relative_to(path.parent.resolve()):
        raise Unreadable("it is a link that leads outside the student's folder")
    try:
        # O_NONBLOCK, because a pipe under this name would block forever.
        handle = os.open(real, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0))
        try:  # `open` takes no handle of a folder, and would leave it open
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise Unreadable("it is no regular file")
            with open(handle, "rb", closefd=False) as file:
                content = file.read(LARGEST + 1)
        finally:
            os.close(handle)
    except OSError as error:
        raise Unreadable(f"it cannot be opened ({error.strerror or error})") from None
    if not content.strip():
        raise Unreadable("the file is empty")
    if len(content) > LARGEST:
        raise Unreadable(f"it is larger than {LARGEST // 2**20} MB: clear its outputs")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Unreadable("it is not UTF-8 text: save it again in Jupyter") from None


def _sources(notebook: Any) -> list[str]:
    """Returns the source of each code cell of a notebook of format 4 or 3. Raises Unreadable for one that is built wrongly."""
    if not isinstance(notebook, dict):
        raise Unreadable("it is JSON, but no notebook")
    cells = notebook.get("cells")
    if cells is None:  # format 3 keeps them in worksheets
        sheets = notebook.get("worksheets")
        if not isinstance(sheets, list):
            raise Unreadable("it is JSON, but no notebook: there are no cells")
        if not all(isinstance(sheet, dict) and isinstance(sheet.get("cells", []), list) for sheet in sheets):
            raise Unreadable(f"its worksheets are damaged: {_AGAIN}")
        cells = [cell for sheet in sheets for cell in sheet.get("cells", [])]
    if not isinstance(cells, list) or not all(isinstance(cell, dict) for cell in cells):
        raise Unreadable(f"its cells are damaged: {_AGAIN}")
    sources = []
    for number, cell in enumerate((cell for cell in cells if cell.get("cell_type") == "code"), start=1):
        source = cell.get("source", cell.get("input", ""))
        if isinstance(source, list) and all(isinstance(line, str) for line in source):
            source = "".join(source)
        if not isinstance(source, str):
            raise Unreadable(f"the source of code cell {number} is no text: {_AGAIN}")
        if len(source) > MOST_OF_A_CELL:
            raise Unreadable(
                f"code cell {number} has {len(source):,} characters, and {MOST_OF_A_CELL:,} are the most that are read"
            )
        sources.append(_tidy(source))
    if sum(map(len, sources)) > MOST_CODE:
        raise Unreadable(
            f"it has {sum(map(len, sources)):,} characters of code, and {MOST_CODE:,} are the most that are read"
        )
    return sources


def _tidy(source: str) -> str:
    """Removes what Jupyter ignores, too: line ends of other systems, a byte order mark, the indentation of a whole cell."""
    source = source.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    first = source.lstrip("\n")
    indent = first[: len(first) - len(first.lstrip())]
    return re.sub(f"^{indent}", "", source, flags=re.MULTILINE) if indent.strip("\n") else source


def _cell(number: int, source: str) -> Cell:
    """Parses a code cell, at first as it is, then without Jupyter's own commands."""
    try:
        return Cell(number, source, _parse(source))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        plain = without_magics(source)
    try:
        return Cell(number, plain, _parse(plain))
    except SyntaxError as error:
        if _MARKERS.search(source):
            return Cell(number, source, None, f"code cell {number} holds merge conflict markers (<<<<<<<)")
        return Cell(number, source, None, f"code cell {number} is no Python: line {error.lineno}, {error.msg}")
    except (ValueError, RecursionError, MemoryError) as error:
        words = (
            f"code cell {number} cannot be read ({type(error).__name__}): it is nested too deeply or holds odd bytes"
        )
        return Cell(number, source, None, words)


def _parse(source: str) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # e.g. for "\d" in a string, which is no error
        tree = ast.parse(source)
        # Compiling finds what the parser accepts, such as a `return` outside a function.
        compile(tree, "<cell>", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        return tree


_QUOTE_OR_BRACKET = re.compile(r"""(\"{3}|'{3})|"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|\#.*|([(\[{])|([)\]}])""")
# Commands that Jupyter accepts without %.
_TYPED_BARE = re.compile(r"(pip3?|conda|mamba|ls|cd|matplotlib|load_ext|autoreload)\s+[\w./~%-]")


def without_magics(source: str) -> str:
    """Returns a cell without Jupyter's own commands (%magic, !command, name?) and with its line numbers kept. Runs none."""
    lines = source.split("\n")
    first = next((i for i, line in enumerate(lines) if line.strip() and not line.startswith("#")), 0)
    if lines[first].startswith("%%"):
        if lines[first][2:].split(" ")[0].strip() in _HIDES_THE_CELL:
            return "\n".join("" for _ in lines)
        lines[first] = ""
    quote, depth, goes_on = "", 0, False  # open triple quotes, open brackets, whether the last command continues here
    for i, line in enumerate(lines):
        if goes_on:
            lines[i], goes_on = "", line.endswith("\\")
            continue
        if not quote and not depth:
            lines[i] = _plain(line)
            goes_on = lines[i] != line and line.endswith("\\")
        quote, depth = _open(lines[i], quote, depth)
    return "\n".join(lines)


def _plain(line: str) -> str:
    """Returns the first line of a statement, with a command of Jupyter's replaced by `pass` or None."""
    indent, text = line[: len(line) - len(line.lstrip())], line.strip()
    if found := re.match(r"%time(it)?\s+(?!-)(.+)", text):  # the statement that it times counts
        return indent + found[2]
    if text.startswith(("%", "!", "?")) or re.fullmatch(r"[\w.]+\?{1,2}", text) or _TYPED_BARE.match(text):
        return f"{indent}pass"
    if found := re.match(r"(\s*[\w, .\[\]'\"]+=\s*)[%!]\s*[\w/~.]", line):
        return f"{found[1]}None"
    return line


def _open(line: str, quote: str, depth: int) -> tuple[str, int]:
    """Returns (the triple quotes, the number of brackets) that are still open after this line."""
    place = 0
    while True:
        if quote:
            end = line.find(quote, place)
            if end < 0:
                return quote, depth
            quote, place = "", end + 3
        found = _QUOTE_OR_BRACKET.search(line, place)
        if not found:
            return "", max(depth, 0)
        quote, place = found[1] or "", found.end()
        depth += bool(found[2]) - bool(found[3])
