"""The parts of the web book that are made from elsewhere: lists of lessons, tables of methods, the navigation.

A page in `book/` holds `<!-- name -->` where a part goes. Every number comes from a file in `data/`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from tools.book import api, diagrams
from tools.book.lessons import Lesson, by_part
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
        "You meet both families of methods: those that compare pictures, and those that learn a start from which to adapt. "
        "Skip recall questions about lessons that you left out.",
    ),
    (
        "Metric learning",
        ("00", "01", "02", "03", "04", "05", "06"),
        "You write all methods that compare pictures, and the baselines that they must beat.",
    ),
    (
        "Adaptation",
        ("00", "01", "02", "05", "07", "08", "09", "10", "11"),
        "You write MAML, its cheaper kin and a learned optimiser, and hold them against prototypes.",
    ),
    (
        "Without a loop",
        ("00", "01", "02", "05", "14", "15", "16", "24"),
        "You stay with an encoder and its prototypes: labels that flow, pictures without a name, invented examples, and classes "
        "that keep coming. No inner loop is needed.",
    ),
    (
        "Your own problem",
        ("00", "01", "02", "05", "26"),
        "You go straight to pictures or sentences of your own. Skip recall questions about lessons that you left out.",
    ),
    ("Everything", (), "You take the lessons in their order."),
)
NBSP = "\N{NO-BREAK SPACE}"
_PAPER = re.compile(r"[A-Z][\w-]+(?:, [A-Z][\w-]+)*(?: et al\.)? (?:19|20)\d\d")  # the first one that a file names
_MARK = re.compile(r"<!-- (\w+) -->")


class PageError(Exception):
    """A page of the book cannot be made. The message says which and why."""


class Book(NamedTuple):
    """What pages are made from.

    pages: repository path -> file of the book's source; settings: [tool.fsl_course] in pyproject.toml; modules: those of the API
    """

    root: Path
    lessons: list[Lesson]
    pages: dict[str, str]
    settings: dict[str, str]
    modules: tuple[api.Module, ...] = ()


def filled(text: str, book: Book, where: str, parts: dict[str, Callable[[Book], str]]) -> str:
    """Returns a page with every `<!-- name -->` replaced by what `parts[name]` returns. Raises PageError for an unknown name."""

    def part(match: re.Match[str]) -> str:
        if match[1] not in parts:
            raise PageError(f"{where}: unknown part {match[0]}; there are {', '.join(sorted(parts))}")
        return parts[match[1]](book)

    return _MARK.sub(part, text)


def table(head: str, rows: list[list[str]]) -> str:
    """Returns a Markdown table. head: the cells of the header line, divided by |."""
    columns = head.count("|") + 1
    return "\n".join([f"| {head} |", "|" + "---|" * columns, *(f"| {' | '.join(row)} |" for row in rows)])


def percent(mean: float, half: float) -> str:
    """Returns "97.5 ± 0.3 %" for a mean and a half width that are fractions, with no-break spaces."""
    return f"{100 * mean:.1f} ± {100 * half:.1f} %".replace(" ", NBSP)


def unbroken(text: str) -> str:
    """Returns a text that keeps each number and its interval on one line."""
    return text.replace(" ± ", f"{NBSP}±{NBSP}")


def duration(seconds: float) -> str:
    """Returns a time with three digits in the largest unit that is not above it: 1.96 s, 165 ms, 220 µs."""
    unit, size = next(((unit, size) for unit, size in (("s", 1.0), ("ms", 1e-3)) if seconds >= size), ("µs", 1e-6))
    return f"{seconds / size:.3g}{NBSP}{unit}"


def clone(book: Book) -> str:
    """Returns the shell commands that fetch the course and open its first lesson."""
    folder = book.settings["repository"].rstrip("/").rsplit("/", 1)[-1]
    return f"```\ngit clone {book.settings['repository']}\ncd {folder}\nmake lab\n```"


def browser(book: Book) -> str:
    """Returns links that open the first lesson on Binder and on Colab."""
    first = book.root / "lessons" / f"{book.lessons[0].stem}.py"
    binder, colab = (placeholder(name, book.root, first, "book/index.md") for name in ("binder", "colab"))
    return f"[Binder]({binder}) or [Colab]({colab})"


def first_lesson(book: Book) -> str:
    """Returns the link to the first lesson."""
    return f"[Lesson {book.lessons[0].number}](../{book.lessons[0].notebook})"


def lesson_list(book: Book) -> str:
    """Returns a section for each part, with the promise of the part and of each of its lessons."""
    sections = []
    for part, mine in by_part(book.lessons):
        lines = [f"- **[{one.number} {one.title}](../{one.notebook})** {one.promise}" for one in mine]
        sections.append("\n".join([f"### {part.number} {part.title}", "", part.promise, "", *lines]))
    return "\n\n".join(sections)


def lesson_path(book: Book) -> str:
    """Returns a table of what each lesson needs, and what the build of the notebooks measured."""
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
    """Returns PATHS as a table, with the planned time added up. Lessons that are not in the book are left out."""
    rows = []
    for name, numbers, words in PATHS:
        chosen = [one for one in book.lessons if one.number in numbers or not numbers]
        minutes = sum(int(one.planned.split()[0]) for one in chosen)
        links = ", ".join(f"[{one.number}](../{one.notebook})" for one in chosen)
        rows.append([f"**{name}**", links, f"{minutes // 60} h {minutes % 60:02d} min", words])
    return table("path | lessons | planned | what to expect", rows)


def lesson_tree(book: Book) -> str:
    """Returns the navigation of the lessons, a captioned list for each part."""
    trees = []
    for part, mine in by_part(book.lessons):
        pages = [f"{one.number} {one.title.split(':')[0]} <{book.pages[one.notebook]}>" for one in mine]
        trees.append(
            "\n".join(["```{toctree}", ":hidden:", f":caption: {part.number} {part.title}", "", *pages, "```"])
        )
    return "\n\n".join(trees)


def api_rooms(book: Book) -> str:
    """Returns the table of the public modules and their navigation."""
    return api.index(list(book.modules))


def diagram(name: str) -> Callable[[Book], str]:
    """Returns the part that shows a drawing of `tools.book.diagrams` with its alt text."""
    return lambda _: diagrams.markdown(name)


def methods(book: Book) -> str:
    """Returns a table of every method of the package: file and class, paper, and the lessons that use it."""
    from fsl_course.weights.learners import MAKERS

    rows = []
    for name in MAKERS:
        source = (book.root / "fsl_course" / "methods" / f"{name}.py").read_text(encoding="utf-8")
        learners = re.findall(r"^class (\w+)\((?:FewShotLearner|ComparesEmbeddings|MAML)\):", source, re.M)
        paper = _PAPER.search(source)
        uses = [one for one in book.lessons if _imports(book, one, name)]
        names = ", ".join(f"`{learner}`" for learner in learners)
        links = ", ".join(f"[{one.number}](../{one.notebook})" for one in uses)
        rows.append([f"[{name}](../fsl_course/methods/{name}.py)<br>{names}", _short(paper[0]) if paper else "", links])
    return table("method and class | paper | lessons", rows)


def _short(paper: str) -> str:
    """Returns "Snell et al. 2017" for three authors or more, and the names for one or two."""
    authors = paper.split(", ")
    return paper if len(authors) < 3 else f"{authors[0]} et al. {paper[-4:]}"


def _imports(book: Book, lesson: Lesson, method: str) -> bool:
    text = (book.root / "lessons" / f"{lesson.stem}.py").read_text(encoding="utf-8")
    return re.search(rf"fsl_course\.methods(\.| import .*\b){method}\b", text) is not None


def weights(book: Book) -> str:
    """Returns a table of all shipped weights, one a line, with the first test on their cards."""
    rows = []
    for card in shipped(book):
        link = f"[{card['file']}](../data/checkpoints/{card['file']}.json)"
        if tests := accuracies(card):
            first = tests[0]
            rows.append([link, f"{first['way']}-way {first['shot']}-shot", percent(first["mean"], first["ci95"])])
        elif card["data"] == "sinusoids":
            rows.append([link, "sine curves", "[errors](results.md#sine-curves)"])
        else:  # nets that draw
            rows.append([link, "drawings", f"[none: they draw](../fsl_course/methods/{card['method']}.py)"])
    return table("weights | tested on | accuracy", rows)


def shipped(book: Book) -> list[dict[str, Any]]:
    """Returns the cards of all shipped weights, each with `file`, its name without ending."""
    paths = sorted((book.root / "data" / "checkpoints").glob("*.json"))
    return [{**json.loads(path.read_text(encoding="utf-8")), "file": path.stem} for path in paths]


def accuracies(card: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns the tests on a card that measured accuracy: none for sine curves and for nets that draw."""
    tests = card.get("test", [])
    return [line for line in tests if "mean" in line] if isinstance(tests, list) else []


PARTS: dict[str, Callable[[Book], str]] = {
    "clone": clone,
    "browser": browser,
    "first_lesson": first_lesson,
    "lesson_list": lesson_list,
    "lesson_path": lesson_path,
    "short_paths": short_paths,
    "lesson_tree": lesson_tree,
    "api_rooms": api_rooms,
    "methods": methods,
    "weights": weights,
    "diagram_metric": diagram("metric"),
    "diagram_loops": diagram("loops"),
    "diagram_package": diagram("package"),
}
