"""Mends finished HTML where Sphinx and its theme leave out what assistive technology, or a quiet page, needs.

Each rule is one small replacement in text that Sphinx and the theme always write in the same way;
`tests/tools/book/test_build.py` looks for the outcome in a built page.
"""

from __future__ import annotations

import html
import re

CHINESE = "zh-Hans"
_TAG = re.compile(r"(<[^<>]*>)")
_AS_IT_IS = {"script", "style", "title", "textarea", "option"}  # elements that may not contain tags
_IDEOGRAPHS = re.compile(r"[\u3400-\u9fff](?:[\u3000-\u303f\uff00-\uffef·、]*[\u3400-\u9fff])*")


def mended(page: str) -> str:
    """Returns a page of the book, or a page of slides, with everything mended."""
    page = _exercises(_signatures(_tables(page)))
    # The visible words are the accessible name: a different one confuses people who control their computer by voice.
    page = page.replace('<summary aria-label="Toggle hidden content">', "<summary>")
    page = re.sub(r'(<button class="btn search-button-field [^>]*?) aria-label="Search"', r"\1", page)
    # Names the arrow beside a page that has pages below it.
    page = re.sub(
        r'(<a class="[^"]*reference internal"[^>]*>)((?:(?!</a>).)*)(</a><details[^>]*>)<summary>',
        _named,
        page,
        flags=re.S,
    )
    page = page.replace(
        '<div id="pst-primary-sidebar" class="bd-sidebar-primary',
        '<div id="pst-primary-sidebar" role="region" aria-label="Title, search and pages" class="bd-sidebar-primary',
    )
    return _language(page)


def _named(match: re.Match[str]) -> str:
    words = html.escape(html.unescape(re.sub(r"<[^>]*>", "", match[2])).strip())
    return f'{match[1]}{match[2]}{match[3]}<summary aria-label="Pages below {words}">'


def _tables(page: str) -> str:
    """Gives header cells a scope, and turns empty ones into plain cells."""
    page = re.sub(r"<th\b[^>]*>\s*(?:<p>\s*</p>)?\s*</th>", "<td></td>", page)

    def with_scope(part: re.Match[str]) -> str:
        return re.sub(r"<th(?![^>]*\bscope=)(?=[\s>])", '<th scope="col"', part[0])

    page = re.sub(r"<thead\b.*?</thead>", with_scope, page, flags=re.S)
    return re.sub(r"<th(?![^>]*\bscope=)(?=[\s>])", '<th scope="row"', page)


def _signatures(page: str) -> str:
    """Turns parameters on lines of their own into blocks, because Sphinx writes them as a <dl> without any term."""

    def as_blocks(part: re.Match[str]) -> str:
        text = part[0].replace("<dl>", '<div class="sig-parameters">').replace("</dl>", "</div>")
        return text.replace("<dd>", "<div>").replace("</dd>", "</div>")

    return re.sub(r'<dt class="sig .*?</dt>', as_blocks, page, flags=re.S)


def _exercises(page: str) -> str:
    """Sets the difficulty of an exercise apart in its heading, and leaves it out of the page's contents."""
    page = re.sub(r"(<h3>Exercise (?:(?!</h3>).)*?)\((difficulty [^()<]*)\)", r'\1<span class="effort">\2</span>', page)
    return re.sub(r"(<a [^>]*nav-link[^>]*>Exercise (?:(?!</a>).)*?)\s*\(difficulty [^()<]*\)", r"\1", page)


def _language(page: str) -> str:
    """Marks Chinese words as Chinese, for screen readers and for browsers that pick a font."""
    if not _IDEOGRAPHS.search(page):
        return page
    parts, inside = _TAG.split(page), ""
    for place, part in enumerate(parts):
        if place % 2:  # a tag
            name = part[1:].split(">")[0].split()[0].lower() if part[1:2].isalpha() or part[1:2] == "/" else ""
            if name in _AS_IT_IS:
                inside = name
            elif inside and name == f"/{inside}":
                inside = ""
        elif not inside:
            parts[place] = _IDEOGRAPHS.sub(lambda words: f'<span lang="{CHINESE}">{words[0]}</span>', part)
    return "".join(parts)
