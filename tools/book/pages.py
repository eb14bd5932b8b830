"""The parts of the web book that are made from elsewhere: lists of lessons, tables of methods and results, the API's pages.

A page in `book/` holds `<!-- name -->` where a part goes. Every number comes from a file in `data/`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from tools.book.lessons import Lesson
from tools.notebooks.cells import placeholder

# Short ways through the course: name, lessons, and what a reader goes without.
PATHS = (
    (
        "An evening",
        ("00", "05"),
        "You see the idea and one method that works. Words that lesson 01 explains stand in the glossary.",
    ),
    (
        "A day",
        ("00", "01", "05", "07", "08"),
        "Both families of methods: compare pictures, and learn a start from which to adapt. "
        "Pass over recall questions about lessons that you left out.",
    ),
    (
        "Metric learning",
        ("00", "01", "02", "03", "04", "05", "06"),
        "All methods that compare pictures, and what they must beat.",
    ),
    ("Everything", (), "The lessons in their order."),
)
_PAPER = re.compile(r"[A-Z][\w-]+(?:, [A-Z][\w-]+)*(?: et al\.)? (?:19|20)\d\d")  # the first one that a file names
_MARK = re.compile(r"<!-- (\w+) -->")


class PageError(Exception):
    """A page of the book cannot be made. The message says which and why."""


class Book(NamedTuple):
    """What pages are made from. pages: repository path -> file of the book's source; settings: [tool.fsl_course]."""

    root: Path
    lessons: list[Lesson]
    pages: dict[str, str]
    settings: dict[str, str]


def filled(text: str, book: Book, where: str, parts: dict[str, Callable[[Book], str]]) -> str:
    """A page with every `<!-- name -->` replaced by what `parts[name]` says of the book."""

    def part(match: re.Match[str]) -> str:
        if match[1] not in parts:
            raise PageError(f"{where}: unknown part {match[0]}; there are {', '.join(sorted(parts))}")
        return parts[match[1]](book)

    return _MARK.sub(part, text)


def table(head: str, rows: list[list[str]]) -> str:
    """A Markdown table. head: the cells of the header line, divided by |."""
    columns = head.count("|") + 1
    return "\n".join([f"| {head} |", "|" + "---|" * columns, *(f"| {' | '.join(row)} |" for row in rows)])


def percent(mean: float, half: float) -> str:
    """97.5 ± 0.3 % from fractions, in one piece."""
    return f"{100 * mean:.1f} ± {100 * half:.1f} %".replace(" ", "\N{NO-BREAK SPACE}")


def start(book: Book) -> str:
    """How to begin: on one's own machine, on Binder, on Colab."""
    repository = book.settings["repository"]
    first = book.root / "lessons" / f"{book.lessons[0].stem}.py"
    binder, colab = (placeholder(name, book.root, first, "book/index.md") for name in ("binder", "colab"))
    rows = [
        [
            "your machine",
            f"`git clone {repository}`, then `make lab` in the new folder; [Windows, conda and more](../README.md#start)",
        ],
        ["Binder", f"[start in the browser]({binder}); nothing to install, but the first start takes minutes"],
        ["Colab", f"[open the first lesson]({colab}); its first cell installs the course"],
    ]
    return table("where | how", rows)


def lesson_list(book: Book) -> str:
    """Every lesson with its promise."""
    return "\n".join(f"- **[{one.number} {one.title}](../{one.notebook})** {one.promise}" for one in book.lessons)


def lesson_path(book: Book) -> str:
    """What each lesson needs, and what the build of the notebooks measured."""
    rows = [
        [
            f"[{one.number} {one.title.split(':')[0]}](../{one.notebook})",
            one.needs,
            one.planned,
            one.seconds,
            one.memory,
        ]
        for one in book.lessons
    ]
    return table("lesson | needs | planned | runs in | memory", rows)


def short_paths(book: Book) -> str:
    """PATHS as a table, with the planned time added up. Lessons that are not in the book are left out."""
    rows = []
    for name, numbers, words in PATHS:
        chosen = [one for one in book.lessons if one.number in numbers or not numbers]
        minutes = sum(int(one.planned.split()[0]) for one in chosen)
        links = ", ".join(f"[{one.number}](../{one.notebook})" for one in chosen)
        rows.append([f"**{name}**", links, f"{minutes // 60} h {minutes % 60:02d} min", words])
    return table("path | lessons | planned | what to expect", rows)


def lesson_tree(book: Book) -> str:
    """The lessons for the navigation."""
    return "\n".join(book.pages[one.notebook] for one in book.lessons)


def more_tree(book: Book) -> str:
    """Every page of docs/ for the navigation, those in folders first."""
    found = [(path.count("/") == 1, name) for path, name in book.pages.items() if path.startswith("docs/")]
    return "\n".join(name for _, name in sorted(found))


def methods(book: Book) -> str:
    """Every method of the package: class, paper, lessons that use it, shipped weights."""
    from fsl_course.weights.learners import MAKERS

    rows = []
    for name in MAKERS:
        path = book.root / "fsl_course" / "methods" / f"{name}.py"
        source = path.read_text(encoding="utf-8")
        learners = re.findall(r"^class (\w+)\((?:FewShotLearner|ComparesEmbeddings|MAML)\):", source, re.M)
        paper = _PAPER.search(source)
        uses = [one for one in book.lessons if _imports(book, one, name)]
        cards = [card for card in shipped(book) if card["method"] == name]
        rows.append(
            [
                f"[{name}](../fsl_course/methods/{name}.py)",
                ", ".join(f"`{learner}`" for learner in learners),
                paper[0] if paper else "",
                ", ".join(f"[{one.number}](../{one.notebook})" for one in uses),
                "<br>".join(_weights(card) for card in cards) or "none",
            ]
        )
    return table("method | class | paper | lessons | shipped weights", rows)


def _imports(book: Book, lesson: Lesson, method: str) -> bool:
    text = (book.root / "lessons" / f"{lesson.stem}.py").read_text(encoding="utf-8")
    return re.search(rf"fsl_course\.methods(\.| import .*\b){method}\b", text) is not None


def _weights(card: dict[str, Any]) -> str:
    first = card["test"][0]
    if "mean" not in first:
        return f"[{card['file']}](../data/checkpoints/{card['file']}.json)"
    result = f"{first['way']}-way {first['shot']}-shot {percent(first['mean'], first['ci95'])}"
    return f"[{card['file']}](../data/checkpoints/{card['file']}.json): {result}"


def shipped(book: Book) -> list[dict[str, Any]]:
    """The cards of all shipped weights, each with `file`, its name without ending."""
    paths = sorted((book.root / "data" / "checkpoints").glob("*.json"))
    return [{**json.loads(path.read_text(encoding="utf-8")), "file": path.stem} for path in paths]


PARTS: dict[str, Callable[[Book], str]] = {
    "start": start,
    "lesson_list": lesson_list,
    "lesson_path": lesson_path,
    "short_paths": short_paths,
    "lesson_tree": lesson_tree,
    "more_tree": more_tree,
    "methods": methods,
}
