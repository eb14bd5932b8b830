"""The package's docstrings as reStructuredText. They are plain text: shapes in brackets, aligned names, indented examples.

Nothing in them is markup, so everything that Sphinx would take for markup is escaped, and what the eye reads as a
list, a table or a shape becomes one.
"""

from __future__ import annotations

import itertools
import re

# `code`, ``code``, a shape or a chain of shapes: [S, D] -> [N, D]
_CODE = re.compile(r"(`{1,2})([^`]+)\1|\[[^\[\]\n]+\](?:\s*->\s*\[[^\[\]\n]+\])*")
_FIELD = re.compile(r"^(?P<names>[\w*]+(?:, [\w*]+)*):\s+(?P<text>\S.*)$")


def to_rst(lines: list[str]) -> list[str]:
    """The lines of a docstring -> lines of reStructuredText, in paragraphs, lists and literal blocks."""
    made: list[str] = []
    for paragraph in _paragraphs(lines):
        fields, rest = _fields(paragraph)
        made += [*(f"* {_literal(names)}: {inline(text)}" for names, text in fields), *([""] if fields else [])]
        for by_hand, run in itertools.groupby(rest, _aligned):
            if by_hand:
                made += ["::", "", *("    " + line for line in run), ""]  # keep every space
            else:
                made += [inline(" ".join(run)), ""]
    return made


def inline(text: str) -> str:
    """One paragraph: code and shapes as literals, everything else escaped."""
    made, at = [], 0
    for match in _CODE.finditer(text):
        made += [_escape(text[at : match.start()]), _literal(match[2] or match[0])]
        at = match.end()
    return "".join([*made, _escape(text[at:])]).strip()


def _literal(code: str) -> str:
    # an escaped space on both sides: a literal may then stand inside a word, "[N]s"
    return f"\\ ``{code.strip()}``\\ "


def _escape(text: str) -> str:
    return re.sub(r"([\\*`|_])", r"\\\1", text)


def _paragraphs(lines: list[str]) -> list[list[str]]:
    found: list[list[str]] = [[]]
    for line in lines:
        if line.strip():
            found[-1].append(line.rstrip())
        elif found[-1]:
            found.append([])
    return [paragraph for paragraph in found if paragraph]


def _aligned(line: str) -> bool:
    """True for a line that its author has placed by spaces: an example, a diagram, a table."""
    return line.startswith(" ") or re.search(r"\S  +\S", line) is not None


def _fields(paragraph: list[str]) -> tuple[list[tuple[str, str]], list[str]]:
    """The `name: text` lines at the start, each with its indented continuation, and the lines after them."""
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
    """For Sphinx's event autodoc-process-docstring: changes the lines in place."""
    lines[:] = to_rst(lines)
