"""Makes slides for teaching: reveal.js pages that work without a network, from the text in docs/teaching/slides.

A lesson's slides are written by hand, one message each:

    ## A prototype is the mean of its class's embeddings     the headline is the message
    Short text, a formula or a table.
    {figure: Train for real}                                the first figure below this heading of the solved notebook
    {figure: Train for real, 2}                             the second
    Note: What the speaker says, and what to ask the class.

Figures are taken from the solved notebook, so they never differ from the lesson. Notes show in the speaker's window (key S).
"""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import NamedTuple

import nbformat
from markdown_it import MarkdownIt
from mdit_py_plugins.dollarmath import dollarmath_plugin
from nbformat import NotebookNode

from tools.book.lessons import Lesson
from tools.book.links import Links

FOLDER = "docs/teaching/slides"
MOST = 25  # slides a lesson
_FIGURE = re.compile(r"^\{figure: (?P<heading>[^{}]+?)(?:, (?P<number>\d+))?\}$", re.M)
_PICTURE = re.compile(r"<img\b[^>]*>", re.S)
_HEADING = re.compile(r"^#{1,4} +(.+)$", re.M)


class SlidesError(Exception):
    """The text of a lesson's slides cannot be shown. The message names the file, the slide, and what to change."""


class Slide(NamedTuple):
    """One slide. title and text: Markdown; figures: (heading in the lesson, number); note: what the speaker says."""

    title: str
    text: str
    figures: list[tuple[str, int]]
    note: str


def slides(text: str, where: str) -> list[Slide]:
    """Returns the slides of a file of FOLDER. Raises SlidesError for none, too many, and one without headline or note."""
    found = []
    for part in re.split(r"^(?=## )", text, flags=re.M):
        title, _, body = part.strip().partition("\n")
        if not title:
            continue
        if not title.startswith("## "):
            raise SlidesError(f"{where}: a slide begins with a headline, `## ...`; found {title[:60]!r}.")
        shown, _, note = body.partition("\nNote:")
        if not note.strip():
            raise SlidesError(f"{where}, {title[3:]!r}: the speaker's note is missing; end the slide with `Note: ...`.")
        figures = [(m["heading"].strip(), int(m["number"] or 1)) for m in _FIGURE.finditer(shown)]
        found.append(Slide(title[3:].strip(), _FIGURE.sub("", shown).strip(), figures, " ".join(note.split())))
    if not 1 <= len(found) <= MOST:
        raise SlidesError(f"{where}: a lesson has 1 to {MOST} slides; this file has {len(found)}.")
    return found


def figures(notebook: NotebookNode) -> dict[str, list[str]]:
    """Returns the figures of a solved notebook as <img> tags, by the heading that they stand below."""
    found: dict[str, list[str]] = {}
    heading = ""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            names = _HEADING.findall(cell.source)
            heading = names[-1].strip() if names else heading
        else:
            pictures = [picture for output in cell.outputs for picture in _PICTURE.findall(_as_html(output))]
            found.setdefault(heading, []).extend(pictures)
    return {name: pictures for name, pictures in found.items() if pictures}


def _pictures(slide: Slide, found: dict[str, list[str]], where: str) -> str:
    """Returns the <img> tags of a slide. Raises SlidesError if the lesson has no such figure."""
    shown = []
    for heading, number in slide.figures:
        there = found.get(heading, [])
        if not 1 <= number <= len(there):
            raise SlidesError(
                f"{where}, {slide.title!r}: the lesson has {len(there)} figures below {heading!r}, so there is no number "
                f"{number}. Headings with figures: {', '.join(found)}."
            )
        shown.append(there[number - 1])
    return "".join(shown)


def _as_html(output: NotebookNode) -> str:
    data = output.get("data", {})
    if "image/png" in data:
        alt = html.escape(output.get("metadata", {}).get("image/png", {}).get("alt", "figure"))
        return f'<img alt="{alt}" src="data:image/png;base64,{data["image/png"].strip()}">'
    return data.get("text/html", "")


def page(root: Path, lesson: Lesson, links: Links) -> str:
    """Returns the slides of one lesson as HTML, for the folder slides/ of the book. Raises SlidesError."""
    where = f"{FOLDER}/{lesson.stem}.md"
    if not (root / where).is_file():
        raise SlidesError(f"lesson {lesson.number} has no slides: write {where}, as tools/book/slides.py describes.")
    found = figures(nbformat.read(root / lesson.solution, as_version=4))
    markdown = _markdown()

    def shown(text: str) -> str:
        return markdown.render(links.for_html(text, where)) if text else ""

    first = Slide(f"{lesson.number} {lesson.title}", lesson.promise, [], f"Planned: {lesson.planned}.")
    sections = []
    for number, slide in enumerate([first, *slides((root / where).read_text(encoding="utf-8"), where)]):
        level = "h2" if number else "h1"
        heading = f"<{level}>{markdown.renderInline(links.for_html(slide.title, where))}</{level}>\n"
        note = f'<aside class="notes">{shown(slide.note)}</aside>\n'
        sections.append(f"<section>\n{heading}{shown(slide.text)}{_pictures(slide, found, where)}{note}</section>\n")
    back = f'<a class="back" href="../notebooks/{lesson.stem}.html">Lesson {lesson.number}</a>'
    return _template(root).format(
        title=html.escape(f"{lesson.number} {lesson.title}"), back=back, slides="".join(sections)
    )


def _markdown() -> MarkdownIt:
    """Returns a parser for Markdown as in the notebooks, which leaves formulas to MathJax."""

    def formula(content: str, options: dict) -> str:
        marks = ("\\[", "\\]") if options["display_mode"] else ("\\(", "\\)")
        return marks[0] + html.escape(content) + marks[1]

    return MarkdownIt("gfm-like", {"linkify": False}).use(dollarmath_plugin, renderer=formula)


def _template(root: Path) -> str:
    return (root / "book" / "_templates" / "slides.html").read_text(encoding="utf-8")


def index(lessons: list[Lesson]) -> str:
    """Returns the page that lists all slides."""
    rows = "".join(f'<li><a href="{one.stem}.html">{one.number} {html.escape(one.title)}</a></li>\n' for one in lessons)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>Slides</title>\n'
        '<link rel="stylesheet" href="../_static/slides.css">\n<link rel="icon" href="../_static/icon.svg">\n'
        '</head>\n<body class="list">\n'
        "<main>\n<h1>Slides for teaching</h1>\n"
        f'<ul>\n{rows}</ul>\n<p><a href="../index.html">Back to the book</a></p>\n</main>\n</body>\n</html>\n'
    )
