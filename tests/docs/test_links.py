"""Links in Markdown pages lead to files and headings that exist (those of lessons: tests/lessons/test_lessons.py)."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

import pytest

from tests.lessons.test_lessons import anchors

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    path for place in (".", "docs", "data", "lessons") for path in (ROOT / place).glob("*.md" if place == "." else "**/*.md")
)  # fmt: skip


def problems(page: Path) -> list[str]:
    """What is wrong with the links of a page: missing files and anchors, pictures without alt text."""
    text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    found = [f"a picture without alt text: {match}" for match in re.findall(r"!\[\s*\]\([^)]*\)", text)]
    for target in re.findall(r"\]\(\s*<?([^)\s>]+)", text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / unquote(path)).resolve() if path else page
        if not file.is_relative_to(ROOT):
            found.append(f"{target} leads out of the repository")
        elif not file.exists():
            found.append(f"{target} does not exist")
        elif anchor and file.suffix == ".md" and unquote(anchor) not in anchors(file.read_text(encoding="utf-8")):
            found.append(f"{target}: there is no such heading")
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path):
    assert problems(page) == []


def test_dead_links_and_pictures_without_alt_text_are_found(tmp_path: Path):
    page = tmp_path / "page.md"
    page.write_text("[one](gone.md) ![](gone.png) [two](https://example.org) `[three](gone.md)`")
    assert len(problems(page)) == 3


def test_readme_is_one_screen_and_links():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.split()) <= 900
    assert "small package" in text, "README calls the package small only beside its count of lines"
    assert re.search(r"small package, <!-- lines -->[\d,]+ lines<!-- /lines -->", text)


def test_no_page_has_the_same_anchor_twice():
    """A link to such an anchor leads to the first one, and the book refuses the page."""
    for page in (*(ROOT / "lessons").glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "book").glob("*.md")):
        anchors = re.findall(r'<a id="([^"]+)">', page.read_text(encoding="utf-8"))
        assert len(anchors) == len(set(anchors)), (page.name, sorted({a for a in anchors if anchors.count(a) > 1}))
