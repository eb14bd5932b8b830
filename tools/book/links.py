"""Links of the repository's pages, made to work inside the web book.

A page of the repository links to files: `../lessons/GLOSSARY.md#way`, `../fsl_course/nets.py`. In the book a file is a page
of its own, or it is shown by the repository on the web. A link to a file that does not exist is an error.
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
    + r"|\]\((?P<link>[^()\s]+)\)",
    re.S,
)
_ANCHORED = re.compile(r'<a id="([\w-]+)"></a>\s*([^|\n]+?)(?=\s*(?:\||$))', re.M)


class LinkError(Exception):
    """A page links to what is not there. The message says which page and which link."""


class Links:
    """root: the repository; pages: repository path -> file of the book's source ("glossary.md"); blob: address of its files."""

    def __init__(self, root: Path, pages: dict[str, str], blob: str) -> None:
        self.root, self.pages, self.blob = root, pages, blob.rstrip("/")
        self.images: set[str] = set()  # repository paths of the pictures that pages show

    def resolve(self, target: str, source: str) -> tuple[str | None, str]:
        """A link of the page `source` (repository path) -> (file of the book, anchor), or (None, address)."""
        if re.match(r"[a-z][a-z0-9+.-]*:", target):
            return None, target
        path, _, anchor = target.partition("#")
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), path)) if path else source
        if path == GLOSSARY and anchor:
            anchor = f"term-{anchor}"
        if path in self.pages:
            return self.pages[path], anchor
        if path.startswith("..") or not (self.root / path).exists():
            raise LinkError(f"{source}: the link {target} leads nowhere; there is no {path}")
        return None, f"{self.blob}/{path}" + (f"#{anchor}" if anchor else "")

    def for_sphinx(self, text: str, source: str) -> str:
        """Markdown with links as MyST wants them, so that Sphinx checks each."""

        def write(page: str, anchor: str) -> str:
            if anchor.startswith("term-"):
                return f"#{anchor}"  # a target that is known everywhere in the book
            return f"/{page}#{anchor}" if anchor else f"/{page}"

        return self._rewrite(text, source, write)

    def for_html(self, text: str, source: str) -> str:
        """Markdown with links to built pages, as seen from a folder of the book."""

        def write(page: str, anchor: str) -> str:
            return f"../{page.rsplit('.', 1)[0]}.html" + (f"#{anchor}" if anchor else "")

        return self._rewrite(text, source, write)

    def _rewrite(self, text: str, source: str, write: Callable[[str, str], str]) -> str:
        def replace(match: re.Match[str]) -> str:
            if match["image"]:
                path = posixpath.normpath(posixpath.join(posixpath.dirname(source), match["image"]))
                if not (self.root / path).is_file():
                    raise LinkError(f"{source}: there is no picture {match['image']}")
                self.images.add(path)
                return f"![{match['alt']}](/{path})"
            if not match["link"]:
                return match[0]
            page, rest = self.resolve(match["link"], source)
            return f"]({write(page, rest) if page else rest})"

        return _TOKEN.sub(replace, text)


def with_targets(text: str) -> str:
    """The glossary with MyST targets `term-...` in place of its HTML anchors."""
    return _ANCHORED.sub(r"[\2]{#term-\1}", text)
