"""Markdown pages as HTML pages that stand alone and print well: worksheets, tests, plans.

    python -m tools.classroom.printable docs/teaching/worksheets/*.md --out build/print

The pages load nothing from elsewhere: no script, no font, no style sheet.
"""

from __future__ import annotations

import argparse
import html
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from markdown_it import MarkdownIt

STYLE = """
body { font: 11.5pt/1.45 Georgia, serif; max-width: 46rem; margin: 2rem auto; padding: 0 1rem; color: #000; background: #fff }
h1 { font-size: 1.5em; margin: 0 0 .8rem }
hr { border: 0; border-bottom: 1px solid #555; height: 1.9rem; margin: 0 } /* a line to write on */
table { border-collapse: collapse; margin: .8rem 0; width: 100% }
th, td { border: 1px solid #555; padding: .35rem .6rem; text-align: left; height: 1.5rem }
th { background: #eee }
code { font-size: .95em }
@media print {
  @page { size: A4; margin: 18mm }
  body { margin: 0; padding: 0; max-width: none }
  table, li, p { break-inside: avoid }
  p:has(> strong:first-child) { break-after: avoid } /* a question stays with its table, lines or options */
  hr + hr { break-before: avoid }
  h1 { break-before: page } h1:first-of-type { break-before: auto }
  h2, h3 { break-after: avoid }
}
"""


def page(markdown: str) -> str:
    """Returns an HTML document of this Markdown, titled by its first heading."""
    found = re.search(r"^# (.+)$", markdown, re.M)
    body = MarkdownIt("commonmark").enable("table").render(markdown)
    title = html.escape(found[1] if found else "Page")
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>'
    return f'<!doctype html>\n<html lang="en">\n<head>{head}<style>{STYLE}</style></head>\n<body>\n{body}</body>\n</html>\n'


def matching(path: Path) -> list[Path]:
    """Expands a * in a file's name, because the shells of Windows do not."""
    return sorted(path.parent.glob(path.name)) if "*" in path.name and not path.exists() else [path]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line. Returns the exit status."""
    parser = argparse.ArgumentParser(description="Markdown to HTML that prints well.")
    parser.add_argument("pages", nargs="+", type=Path, metavar="FILE.md")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    options = parser.parse_args(arguments)
    pages = [found for path in options.pages for found in matching(path)]
    absent = [str(path) for path in pages or options.pages if not path.is_file()]
    if absent:
        print(f"printable: not a file: {', '.join(absent)}", file=sys.stderr)
        return 1
    options.out.mkdir(parents=True, exist_ok=True)
    for path in pages:
        target = options.out / f"{path.stem}.html"
        target.write_text(page(path.read_text(encoding="utf-8")), encoding="utf-8")
        print(target)
    return 0


if __name__ == "__main__":
    sys.exit(main())
