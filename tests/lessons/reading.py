"""How the rules read a lesson: its cells, its sections, its exercises, its words."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from tools.notebooks.cells import read_cells

Rule = Callable[[Path], list[str]]
RULES: list[Rule] = []


def rule(function: Rule) -> Rule:
    """Registers a rule, which takes a lesson's file and returns in words what breaks it. Its docstring is the rule."""
    RULES.append(function)
    return function


def sources(lesson: Path, kind: str) -> list[str]:
    """Returns the sources of the lesson's "code" or "markdown" cells."""
    return [cell.source for cell in read_cells(lesson) if cell.cell_type == kind]


def is_first(lesson: Path) -> bool:
    """Returns True for lesson 00, which some rules treat more gently."""
    return lesson.name.startswith("00")


def sections(lesson: Path) -> list[tuple[str, str]]:
    """Returns (heading, text below it) for every second-level heading, without fenced code."""
    text = re.sub(r"^```.*?^```", "", "\n\n".join(sources(lesson, "markdown")), flags=re.DOTALL | re.MULTILINE)
    parts = re.split(r"^## +(.+)$", text, flags=re.MULTILINE)
    return list(zip(parts[1::2], parts[2::2], strict=True))


def section(lesson: Path, name: str) -> str:
    """Returns the text of the section whose heading begins with this name, "" if there is none."""
    return next((text for heading, text in sections(lesson) if re.match(rf"{name}\b", heading)), "")


def exercises(lesson: Path) -> set[str]:
    """Returns the numbers of the exercises that the lesson checks, e.g. {"05.1", "05.2"}."""
    return set(re.findall(r"\bcheck\(\s*[\"'](\d+\.\d+)[\"']", "\n".join(sources(lesson, "code"))))


def count_words(text: str) -> int:
    """Counts the words of a text cell.

    Leaves out headings, tables, fenced code, display equations, <details>, HTML tags and lines that hold only links. An inline
    formula or a piece of code is one word.
    """
    for left_out in (r"^```.*?^```", r"<details.*?</details>", r"\$\$.*?\$\$", r"<!--.*?-->", r"<[^>]+>"):
        text = re.sub(left_out, " ", text, flags=re.DOTALL | re.MULTILINE)
    link = r"!?\[[^\[\]]*\]\([^()]*\)"
    lines = [line for line in text.split("\n") if not re.match(r"\s*(#|\|)", line)]
    lines = [line for line in lines if re.search(r"\w", re.sub(link, "", line))]
    text = re.sub(r"`[^`]*`|\$[^$]*\$", " one ", " ".join(lines))
    text = re.sub(r"\]\([^()]*\)", "] ", text)
    return sum(bool(re.search(r"\w", word)) for word in text.split())
