"""Saves a learner's work to one file and restores it, because a session on Binder forgets everything."""

from __future__ import annotations

import ast
import inspect
import json
import linecache
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fsl_classroom.checking import progress
from fsl_classroom.checking.sandbox import code_of
from fsl_course._system.files import replace_file

FORMAT, _VERSION = "fsl-course work", 1
MOST_BYTES = 4_000_000  # a file of work takes some 100 kB
_MOST_OF_ONE = 40_000  # characters of one answer


def cell_of(answer: Callable[..., Any]) -> str:
    """Returns the source of the notebook cell that defines a function (of the function alone if it is from a file), or ""."""
    code = code_of(answer)
    if code is None:
        return ""
    try:
        in_a_file = Path(code.co_filename).is_file()
        source = inspect.getsource(code) if in_a_file else "".join(linecache.getlines(code.co_filename))
    except (OSError, ValueError, SyntaxError):
        return ""
    source = source.rstrip("\n")
    return source if len(source) <= _MOST_OF_ONE else ""


def saved_work() -> str:
    """Returns a learner's work as JSON: the progress and the cells with the answers.

    If the progress file cannot be read, it holds this session only; `progress.trouble` says so.
    """
    content = {"format": FORMAT, "version": _VERSION, "saved_at": progress.now(), "exercises": progress.load()}
    return json.dumps(content, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def restore_work(text: str, folder: Path | str = ".") -> list[str]:
    """Restores what `saved_work` returned: the progress, and the answers in the notebooks of a folder.

    text:   the content of the file
    folder: the folder with the course's notebooks; the kernel of a lesson runs there

    Merges the progress: an exercise that is right here stays right. Puts an answer only into a cell that still holds the stub of
    its exercise, so that nothing is overwritten. Runs nothing. Returns sentences that say what was done. Raises ValueError for a
    file that `saved_work` did not make and changes nothing then.
    """
    records = _records_of(text)
    said = []
    if note := progress.merge(records):
        said.append(note)
    right = sum(bool(record.get("passed")) for record in records.values())
    said.insert(0, f"{len(records)} exercises brought back, {right} of them right.")
    filled: dict[str, list[str]] = {}
    left: list[str] = []
    answers = {key: record["answer"] for key, record in records.items() if _is_code(record.get("answer"))}
    for notebook in sorted(Path(folder).glob("[0-9][0-9]_*.ipynb")):
        mine = {key: answer for key, answer in answers.items() if key.startswith(notebook.name[:2] + ".")}
        if mine:
            try:
                filled[notebook.name] = _fill(notebook, mine)
            except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
                said.append(f"{notebook.name} could not be filled ({type(error).__name__}: {error}); it is as it was.")
            left += [key for key in mine if key not in filled.get(notebook.name, [])]
    for name, keys in filled.items():
        if keys:
            said.append(
                f"{name}: your cells for {', '.join(keys)} are back. File > Reload Notebook from Disk shows them."
            )
    if left:
        said.append(f"Left alone, because their cells are not empty: {', '.join(left)}.")
    if answers and not filled:
        said.append("There are no notebooks of the course in this folder, so only your progress is back.")
    return said


def _records_of(text: str) -> dict[str, dict[str, Any]]:
    """Returns the exercises of a file of saved work. Raises ValueError for any other file."""
    if len(text.encode("utf-8", "replace")) > MOST_BYTES:
        raise ValueError(f"this file is too large to be saved work of the course (more than {MOST_BYTES // 10**6} MB).")
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("this is no file of saved work: it is not JSON. Its name ends in .json.") from None
    if not isinstance(content, Mapping) or content.get("format") != FORMAT:
        raise ValueError('this JSON file is no saved work of the course. Use the one that "Save my work" made.')
    if content.get("version") != _VERSION:
        raise ValueError(f"this file was saved by another version of the course ({content.get('version')!r}).")
    records = content.get("exercises")
    if not isinstance(records, Mapping) or not all(isinstance(record, Mapping) for record in records.values()):
        raise ValueError("this file of saved work is damaged: it has no list of exercises.")
    return {str(key): dict(record) for key, record in records.items()}


def _is_code(answer: object) -> bool:
    if not isinstance(answer, str) or not answer.strip() or len(answer) > _MOST_OF_ONE:
        return False
    try:
        ast.parse(answer)
    except (
        SyntaxError,
        ValueError,
        RecursionError,
        MemoryError,
    ):  # also cells with magics, which an answer must not have
        return False
    return True


def _fill(path: Path, answers: Mapping[str, str]) -> list[str]:
    """Puts answers into the cells that still hold their stubs. Returns the ids of those that it restored."""
    content = json.loads(path.read_text(encoding="utf-8"))
    done = []
    for cell in content["cells"]:
        if cell.get("cell_type") != "code":
            continue
        source = cell["source"] if isinstance(cell["source"], str) else "".join(cell["source"])
        stubs = [key for key in answers if f"exercise {key} is not attempted yet" in source]
        if stubs:
            cell["source"] = answers[stubs[0]].splitlines(keepends=True)
            cell["outputs"], cell["execution_count"] = [], None
            done += stubs
    if done:
        replace_file(path, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())
    return done
