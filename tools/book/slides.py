"""Makes slides for teaching from a lesson by rule: reveal.js pages that work without a network.

Slides keep headings, short text, display equations, tables and pictures. They leave out code, folded answers, long text and
references. A cell's tags overrule this: `skip-slide` leaves the cell out, and `slide` keeps all of it, its code too, unless the
code is folded because it only draws (`hide-input`).
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

from tools.book.lessons import FOLDED, Lesson
from tools.book.links import Links
from tools.notebooks.cells import is_added

LONGEST = 45  # words: a longer paragraph does not go onto a slide
_LEFT_OUT = ("References",)
_DETAILS = re.compile(r"<details>.*?</details>\n*", re.S)
_PICTURE = re.compile(r"<img\b[^>]*>", re.S)


class Slide(NamedTuple):
    """One slide. title and text: Markdown; pictures: <img> tags; code: source that a tag has kept."""

    title: str
    text: str
    pictures: list[str]
    code: str = ""


def slides(notebook: NotebookNode) -> list[Slide]:
    """Returns the slides of a solved notebook. Every heading starts a slide, and every picture gets its own after it."""
    found: list[Slide] = []
    title = ""
    for cell in notebook.cells:
        if is_added(cell):
            continue
        tags = cell.metadata.get("tags", [])
        if "skip-slide" in tags:
            continue
        whole = "slide" in tags
        if cell.cell_type == "markdown":
            for part_title, text in sections(cell.source):
                title = part_title or title
                if whole or not title.startswith(_LEFT_OUT):
                    kept = text if whole else shortened(text)
                    found += [Slide(title, part, []) for part in _questions(kept) if part or part_title]
        else:
            pictures = [picture for output in cell.outputs for picture in _PICTURE.findall(_as_html(output))]
            if whole or pictures:
                found.append(Slide(title, "", pictures, cell.source if whole and FOLDED not in tags else ""))
    return found


def sections(text: str) -> list[tuple[str, str]]:
    """Cuts a text cell at its headings into pairs (title, text below); the title is "" before the first heading."""
    parts = re.split(r"^#{1,4} +(.+)$", text, flags=re.M)
    pairs = [("", parts[0]), *zip(parts[1::2], parts[2::2], strict=True)]
    return [(title.strip(), body.strip()) for title, body in pairs if title or body.strip()]


def shortened(text: str) -> str:
    """Returns the paragraphs that fit onto a slide: equations, tables, lists and short text, no answers and no lists of links."""
    kept = []
    for paragraph in re.split(r"\n{2,}", _DETAILS.sub("", text)):
        links_only = all(line.startswith("- [") for line in paragraph.strip().split("\n"))
        structured = paragraph.lstrip().startswith(("$$", "|", "- ", "1. ", "\\begin"))
        if paragraph.strip() and not links_only and (structured or len(paragraph.split()) <= LONGEST):
            kept.append(paragraph.strip())
    return "\n\n".join(kept)


def _questions(text: str) -> list[str]:
    """Cuts a quiz into its questions, one for each slide, and leaves other text in one piece."""
    parts = [part.strip() for part in re.split(r"^(?=\*\*\d\.)", text, flags=re.M)]
    return [part for part in parts if part] or [""]


def _as_html(output: NotebookNode) -> str:
    data = output.get("data", {})
    if "image/png" in data:
        alt = html.escape(output.get("metadata", {}).get("image/png", {}).get("alt", "figure"))
        return f'<img alt="{alt}" src="data:image/png;base64,{data["image/png"].strip()}">'
    return data.get("text/html", "")


def page(root: Path, lesson: Lesson, links: Links) -> str:
    """Returns the slides of one lesson as HTML, for the folder slides/ of the book."""
    notebook = nbformat.read(root / lesson.solution, as_version=4)
    markdown = _markdown()
    shown = []
    for number, slide in enumerate(slides(notebook)):
        body = markdown.render(links.for_html(slide.text, lesson.notebook)) if slide.text else ""
        code = f"<pre><code>{html.escape(slide.code)}</code></pre>\n" if slide.code else ""
        level = "h2" if number else "h1"
        heading = f"<{level}>{markdown.renderInline(links.for_html(slide.title, lesson.notebook))}</{level}>\n"
        shown.append(f"<section>\n{heading}{body}{code}{''.join(slide.pictures)}\n</section>\n")
    back = f'<a class="back" href="../notebooks/{lesson.stem}.html">Lesson {lesson.number}</a>'
    return _template(root).format(
        title=html.escape(f"{lesson.number} {lesson.title}"), back=back, slides="".join(shown)
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
