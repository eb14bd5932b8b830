"""Checks every built page: it loads nothing from elsewhere, its links lead somewhere, and assistive technology can read it.

python -m tools.book.check build/book
"""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

# Attributes whose address a browser loads by itself. A link in the text may lead anywhere.
_LOADS = {
    "script": ("src",),
    "img": ("src", "srcset"),
    "source": ("src", "srcset"),
    "video": ("src", "poster"),
    "audio": ("src",),
    "iframe": ("src",),
    "embed": ("src",),
    "object": ("data",),
    "image": ("href", "xlink:href"),
    "use": ("href", "xlink:href"),
}
# Values of <link rel> that a browser does not fetch.
_IDLE = {"canonical", "alternate", "next", "prev", "author", "license", "search", "index", "help"}
_ELSEWHERE = re.compile(r"\s*(?:https?:)?//", re.I)
_IN_CSS = re.compile(r"""(?:url\(\s*["']?|@import\s+["'])((?:https?:)?//[^"')\s]+)""", re.I)


class Page(HTMLParser):
    """An HTML file with its ids, its local links and its faults, found while it is parsed."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.faults: list[str] = []
        self.headings: list[int] = []
        self.language = ""
        self._style = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        """Handles an opening tag, for HTMLParser."""
        found = {name: value or "" for name, value in attributes}
        if "id" in found:
            if found["id"] in self.ids:
                self.faults.append(f"the id {found['id']} stands here twice")
            self.ids.add(found["id"])
        if tag == "a" and "name" in found:
            self.ids.add(found["name"])
        self._loads(tag, found)
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        if tag == "html":
            self.language = found.get("lang", "")
        if tag == "img" and "alt" not in found:
            self.faults.append(f"a picture without alt text: {found.get('src', '')[:60]}")
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        self._style = tag == "style"

    def _loads(self, tag: str, found: dict[str, str]) -> None:
        wanted = [found[name] for name in _LOADS.get(tag, ()) if name in found]
        if tag == "link" and not set(found.get("rel", "").lower().split()) <= _IDLE:
            wanted.append(found.get("href", ""))
        for address in wanted:
            if _ELSEWHERE.match(address):
                self.faults.append(f"<{tag}> loads {address} from elsewhere")
            elif not address.startswith("data:"):
                self.links.append(address)
        for address in _IN_CSS.findall(found.get("style", "")):
            self.faults.append(f"a style loads {address} from elsewhere")

    def handle_data(self, data: str) -> None:
        """Handles text, for HTMLParser: only that of <style> matters."""
        if self._style:
            self.faults += [f"a style loads {address} from elsewhere" for address in _IN_CSS.findall(data)]

    def handle_endtag(self, tag: str) -> None:
        """Handles a closing tag, for HTMLParser."""
        self._style = self._style and tag != "style"

    def structure(self) -> list[str]:
        """Returns the faults of the page as a whole, in language and headings."""
        found = [] if self.language else ["<html> names no language"]
        if self.headings.count(1) != 1:
            found.append(f"{self.headings.count(1)} headings of level 1; a page has one")
        jumps = [(a, b) for a, b in zip(self.headings, self.headings[1:], strict=False) if b > a + 1]
        return found + [f"a heading of level {b} follows one of level {a}" for a, b in jumps[:1]]


def faults(book: Path) -> list[str]:
    """Returns one sentence for each fault of the built book."""
    book = book.resolve()
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in sorted(book.rglob("*.html"))}
    found = []
    for path, page in pages.items():
        wrong = [*page.faults, *page.structure(), *_broken(book, path, page, pages)]
        found += [f"{path.relative_to(book)}: {words}" for words in dict.fromkeys(wrong)]
    for path in sorted(book.rglob("*.css")):
        for address in _IN_CSS.findall(path.read_text(encoding="utf-8")):
            found.append(f"{path.relative_to(book)}: loads {address} from elsewhere")
    return found if pages else [f"{book.name}: there is no page"]


def _broken(book: Path, path: Path, page: Page, pages: dict[Path, Page]) -> list[str]:
    found = []
    for link in page.links:
        parts = urlsplit(link)
        if parts.scheme or parts.netloc or link in ("", "#"):
            continue
        target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
        if target.is_dir():
            target = target / "index.html"
        if not target.is_relative_to(book) or not target.is_file():
            found.append(f"the link {link} leads nowhere")
        elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].ids:
            found.append(f"the link {link}: there is no such place on that page")
    return found


def main() -> int:
    """Prints the faults of the book in the folder that the command line names. Returns 1 if there are any."""
    if len(sys.argv) != 2:
        print("usage: python -m tools.book.check FOLDER", file=sys.stderr)
        return 2
    found = faults(Path(sys.argv[1]))
    print("\n".join(found) or "every link leads somewhere, and nothing is loaded from elsewhere")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
