"""Turns the docstrings of the packages into reStructuredText for the API pages.

Docstrings are plain text with shapes in brackets, aligned names and indented examples. What Sphinx would take for markup is
escaped; what the eye reads as a list, a table or a shape becomes one.
"""

from __future__ import annotations

import itertools
import re

# `code`, ``code``, a shape or a chain of shapes: [S, D] -> [N, D]
_CODE = re.compile(r"(`{1,2})([^`]+)\1|\[[^\[\]\n]+\](?:\s*->\s*\[[^\[\]\n]+\])*")
_COLUMNS = re.compile(r"^(?P<name>\S(?:.*?\S)?)  +(?P<text>\S.*)$")  # a name, a gap of two spaces or more, what it is
_NUMBERED = re.compile(r"^\d+\. +\S")
_FIELD = re.compile(r"^(?P<names>[\w*]+(?:, [\w*]+)*):\s+(?P<text>\S.*)$")


def to_rst(lines: list[str]) -> list[str]:
    """Returns the lines of a docstring as lines of reStructuredText, in paragraphs, lists and literal blocks."""
    made: list[str] = []
    for paragraph in _paragraphs(lines):
        fields, rest = _fields(paragraph)
        made += [*(f"* {_literal(names)}: {inline(text)}" for names, text in fields), *([""] if fields else [])]
        for kind, run in itertools.groupby(rest, _kind):
            if kind == "by hand":
                made += ["::", "", *("    " + line for line in run), ""]  # keep every space
            elif kind == "list":
                made += [*map(_item, run), ""]
            else:
                made += [inline(" ".join(run)), ""]
    return made


def _kind(line: str) -> str:
    """Returns "by hand" for an indented line (an example, a drawing), "list" for a row of a list or of two columns."""
    if line.startswith(" "):
        return "by hand"
    return "list" if _NUMBERED.match(line) or _COLUMNS.match(line) else "text"


def _item(line: str) -> str:
    """Returns a row as a list item: a numbered one, or a bullet with the name as code."""
    number, name = re.match(r"^(\d+\. +)?(.*)$", line).groups()
    mark, columns = (f"{number.strip()} " if number else "* "), _COLUMNS.match(name)
    if not columns:
        return mark + inline(name)
    is_plain = number or "`" in columns["name"] or " " in columns["name"]
    return f"{mark}{inline(columns['name']) if is_plain else _literal(columns['name'])}: {inline(columns['text'])}"


def inline(text: str) -> str:
    """Returns one paragraph with code and shapes as literals and everything else escaped."""
    made, at = [], 0
    for match in _CODE.finditer(text):
        made += [_escape(text[at : match.start()]), _literal(match[2] or match[0])]
        at = match.end()
    return "".join([*made, _escape(text[at:])]).strip()


def _literal(code: str) -> str:
    # With an escaped space on both sides a literal may stand inside a word: "[N]s".
    return f"\\ ``{code.strip()}``\\ "


def _escape(text: str) -> str:
    return re.sub(r"([\\*`|_])", r"\\\1", text).replace("->", "→")


def _paragraphs(lines: list[str]) -> list[list[str]]:
    found: list[list[str]] = [[]]
    for line in lines:
        if line.strip():
            found[-1].append(line.rstrip())
        elif found[-1]:
            found.append([])
    return [paragraph for paragraph in found if paragraph]


def _fields(paragraph: list[str]) -> tuple[list[tuple[str, str]], list[str]]:
    """Returns the `name: text` lines at the start, each with its indented continuation, and the lines after them."""
    found: list[tuple[str, str]] = []
    for at, line in enumerate(paragraph):
        if match := _FIELD.match(line):
            found.append((match["names"], re.sub("  +", "; ", match["text"])))  # a second column, set off by spaces
        elif found and line.startswith(" "):
            found[-1] = (found[-1][0], f"{found[-1][1]} {line.strip()}")
        else:
            return found, paragraph[at:]
    return found, []


def process(app, what, name, obj, options, lines) -> None:
    """Changes the lines of a docstring in place, for Sphinx's event autodoc-process-docstring."""
    lines[:] = to_rst(lines)


def signature(app, what, name, obj, options, signature, returns) -> tuple[str, str] | None:
    """Returns a signature that Sphinx can read, for its event autodoc-process-signature: `<factory>` is not Python."""
    return (signature.replace("<factory>", "..."), returns) if signature and "<factory>" in signature else None
