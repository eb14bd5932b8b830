"""Links of the repository's pages, made to work inside the web book.

A page of the repository links to files: `../lessons/GLOSSARY.md#way`, `../fsl_course/nets.py`. If the book has a page for the
file, the link leads there, otherwise to the file in the repository on the web. A link to a file that does not exist is an error.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable
from pathlib import Path

GLOSSARY = "lessons/GLOSSARY.md"

# Code is left alone. A link's target follows "](", whatever its text holds.
_FENCE = r"(?ms:^(?P<indent> *)(?P<fence>`{3,}|~{3,}).*?^ *(?P=fence)[`~]*[ \t]*$)"
_TOKEN = re.compile(
    _FENCE
    + r"|(?P<ticks>`+)(?!`).+?(?<!`)(?P=ticks)(?!`)"
    + r"|!\[(?P<alt>[^\]]*)\]\((?P<image>[^()\s]+)\)"
    + r"|\]\((?P<link>[^()\s]+)(?P<title>\s+\"[^\"]*\")?\)",
    re.S,
)
_ANCHORED = re.compile(r'<a id="([\w-]+)"></a>\s*([^|\n]+?)(?=\s*(?:\||$))', re.M)


class LinkError(Exception):
    """A page links to what is not there. The message says which page and which link."""


class Links:
    """Translates links, and collects the pictures that pages show.

    root: the repository; pages: repository path -> file of the book's source, with an anchor where the page shows several files
    ("glossary.md", "api/fsl_course.methods.md#maml"); blob: address of the repository's files on the web
    """

    def __init__(self, root: Path, pages: dict[str, str], blob: str) -> None:
        self.root, self.pages, self.blob = root, pages, blob.rstrip("/")
        self.images: set[str] = set()  # repository paths of the pictures that pages show

    def resolve(self, target: str, source: str) -> tuple[str | None, str]:
        """Returns (file of the book, anchor) for a link on the page `source` (repository path), or (None, address).

        Raises LinkError if the link leads to a file that does not exist.
        """
        if re.match(r"[a-z][a-z0-9+.-]*:", target):
            return None, target
        path, _, anchor = target.partition("#")
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), path)) if path else source
        if path == GLOSSARY and anchor:
            anchor = f"term-{anchor}"
        if path in self.pages:
            page, _, own = self.pages[path].partition("#")
            return page, anchor or own
        if path.startswith("..") or not (self.root / path).exists():
            raise LinkError(f"{source}: the link {target} leads nowhere; there is no {path}")
        return None, f"{self.blob}/{path}" + (f"#{anchor}" if anchor else "")

    def for_sphinx(self, text: str, source: str) -> str:
        """Returns Markdown with links as MyST wants them, so that Sphinx checks each."""

        def write(page: str, anchor: str) -> str:
            if anchor.startswith("term-"):
                return f"#{anchor}"  # a target that is known everywhere in the book
            return f"/{page}#{anchor}" if anchor else f"/{page}"

        return self._rewrite(text, source, write, lambda path: f"/{path}")

    def for_html(self, text: str, source: str) -> str:
        """Returns Markdown with links to built pages and to the pictures that Sphinx copied, seen from a folder of the book."""

        def write(page: str, anchor: str) -> str:
            return f"../{page.rsplit('.', 1)[0]}.html" + (f"#{anchor}" if anchor else "")

        return self._rewrite(text, source, write, lambda path: f"../_images/{posixpath.basename(path)}")

    def _rewrite(self, text: str, source: str, write: Callable[[str, str], str], picture: Callable[[str], str]) -> str:
        """write: page and anchor -> address; picture: repository path -> address."""

        def replace(match: re.Match[str]) -> str:
            if match["image"]:
                path = posixpath.normpath(posixpath.join(posixpath.dirname(source), match["image"]))
                if not (self.root / path).is_file():
                    raise LinkError(f"{source}: there is no picture {match['image']}")
                self.images.add(path)
                return f"![{match['alt']}]({picture(path)})"
            if not match["link"]:
                return match[0]
            page, rest = self.resolve(match["link"], source)
            return f"]({write(page, rest) if page else rest}{match['title'] or ''})"

        return _TOKEN.sub(replace, text)


def with_targets(text: str) -> str:
    """Returns the glossary with MyST targets `term-...` in place of its HTML anchors."""
    return _ANCHORED.sub(r"[\2]{#term-\1}", text)
