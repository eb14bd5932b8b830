"""Builds the web book: a static site from the executed notebooks, which works without a network. No lesson is run.

python -m tools.book.build                   builds it into build/book, slides included, and checks every page
python -m tools.book.build --out FOLDER      into another folder, which is emptied first
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
import tomllib
from collections.abc import Collection
from pathlib import Path

from tools.book import access, api, check, lessons, pages, results, slides, try_page, vendor
from tools.book.links import GLOSSARY, LinkError, Links, with_targets

ROOT = Path(__file__).resolve().parents[2]
# Pages of the repository that are pages of the book as they stand.
_PAGES = {
    "book/api.md": "api/index.md",
    GLOSSARY: "glossary.md",
    "lessons/NOTATION.md": "notation.md",
    "data/glyphs.md": "data/glyphs.md",
    "data/icons.md": "data/icons.md",
    "CONTRIBUTING.md": "contributing.md",
}
_ANSWERS = (
    "_answers.md"  # pages for teachers: linked from the teaching guide, but not in the navigation and not in the search
)
_MARKER = ".fsl-course-book"  # stands in a folder that this tool has made and may empty


class BookError(Exception):
    """The book could not be built. The message says what to do."""


def write_sources(root: Path, source: Path, only: Collection[str] | None = None) -> tuple[pages.Book, Links]:
    """Writes what Sphinx reads. only: numbers of the lessons to take ("00", "05"), all by default; the API goes with all."""
    settings = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["fsl_course"]
    chosen = [one for one in lessons.lessons(root) if only is None or one.number in only]
    modules = api.modules(root) if only is None else []
    paths = {f"book/{path.name}": path.name for path in (root / "book").glob("*.md")} | _PAGES
    for one in chosen:
        paths[one.notebook] = paths[one.solution] = paths[f"lessons/{one.stem}.py"] = one.notebook
    paths |= {module.path: module.page for module in modules}
    for path in sorted((root / "docs").rglob("*.md")):
        if path.is_relative_to(root / slides.FOLDER):  # no pages: slides.page shows them
            continue
        name = path.relative_to(root / "docs").as_posix()
        paths[f"docs/{name}"] = name if "/" in name else f"docs/{name}"
    made = pages.Book(root, chosen, paths, settings, tuple(modules))
    # The landing page stands for the README, which says the same in other words.
    links = Links(root, paths | {"README.md": "index.md"}, f"{settings['repository']}/blob/{settings['branch']}")

    for path, name in paths.items():
        if path.endswith(".md"):
            _write(source / name, links.for_sphinx(_text(made, path), path))
    for one in chosen:
        notebook = lessons.page(root, one, links)
        _write(source / one.notebook, json.dumps(notebook, ensure_ascii=False, indent=1))
    for room in dict.fromkeys(module.room for module in modules):
        _write(source / "api" / f"{room.name}.md", api.page(room, modules))
    for image in links.images:
        (source / image).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / image, source / image)
    return made, links


def _text(book: pages.Book, path: str) -> str:
    """Returns a page of the repository as the book shows it."""
    text = (book.root / path).read_text(encoding="utf-8")
    if path.startswith("book/"):
        return pages.filled(text, book, path, pages.PARTS | results.PARTS)
    if path == GLOSSARY:
        return with_targets(text)
    if path.endswith(_ANSWERS):
        text = f"---\norphan: true\nnosearch: true\n---\n\n{text}"
    # Sphinx takes a worksheet's lines to write on for transitions, and wants something after each.
    return re.sub(r"^_{3,}[ \t]*$", '<hr class="write-on">', text, flags=re.M)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def build(root: Path, out: Path, work: Path | None = None, only: Collection[str] | None = None) -> None:
    """Builds the book into `out` and checks it. Leaves what Sphinx reads in `work` (build/book-work by default).

    only: numbers of the lessons to take, all by default

    Raises BookError, LinkError, LessonError, PageError, SlidesError, TryPageError or VendorError, which say what to do.
    """
    work = work or root / "build" / "book-work"
    _empty(out)
    _empty(work)
    vendor.copy_all(root, work / "static")
    book, links = write_sources(root, work / "source", only)
    _sphinx(root, work, out)
    for one in book.lessons:
        _write(out / "slides" / f"{one.stem}.html", slides.page(root, one, links))
    _write(out / "slides" / "index.html", slides.index(book.lessons))
    try_page.write(root, out)
    for path in sorted(out.rglob("*.html")):
        path.write_text(access.mended(path.read_text(encoding="utf-8")), encoding="utf-8")
    if found := check.faults(out):
        raise BookError(f"The book in {out} has faults:\n" + "\n".join(found))


def _empty(out: Path) -> None:
    """Makes `out` an empty folder. Raises BookError if it holds anything that this tool has not made."""
    if out.exists() and any(out.iterdir()) and not (out / _MARKER).exists():
        raise BookError(f"{out} is not empty and holds no book. Name another folder with --out, or empty it yourself.")
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    (out / _MARKER).touch()
    (out / ".nojekyll").touch()  # GitHub Pages would leave out folders such as _static


def _sphinx(root: Path, work: Path, out: Path) -> None:
    try:
        from sphinx.cmd.build import build_main
    except ModuleNotFoundError:
        raise BookError('Sphinx is missing: pip install -e ".[book]", or `make env`.') from None
    statics = f"html_static_path={root / 'book' / '_static'},{work / 'static'}"
    options = [
        "-b",
        "html",
        "-c",
        str(root / "book"),
        "-d",
        str(work / "doctrees"),
        "-D",
        statics,
        "-W",
        "--keep-going",
        "-n",
        "-q",
    ]
    if build_main([*options, str(work / "source"), str(out)]):
        raise BookError(f"Sphinx has complained, see above. What it read lies in {work / 'source'}.")
    for leftover in (out / ".buildinfo", *(out / "_static").glob("*.html")):  # the theme copies its own templates
        leftover.unlink(missing_ok=True)


def main() -> int:
    """Runs the command line. Returns 1, after a message, if the book cannot be built."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "book")
    options = parser.parse_args()
    errors = (BookError, LinkError, lessons.LessonError, pages.PageError, slides.SlidesError)
    errors += (try_page.TryPageError, vendor.VendorError)
    try:
        build(ROOT, options.out.resolve())
    except errors as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{options.out / 'index.html'}: every link leads somewhere, and nothing is loaded from elsewhere")
    return 0


if __name__ == "__main__":
    sys.exit(main())
