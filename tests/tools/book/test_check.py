"""tools/book/check.py: every fault that it is there to find, found."""

import pytest

from tools.book.check import faults

GOOD = '<html lang="en"><head>{head}</head><body><h1 id="top">A</h1>{body}</body></html>'


def checked(tmp_path, body="", head="", **files):
    (tmp_path / "index.html").write_text(GOOD.format(head=head, body=body))
    for name, content in files.items():
        (tmp_path / name.replace("_", ".")).write_text(content)
    return faults(tmp_path)


@pytest.mark.parametrize(
    "body",
    [
        '<a href="https://example.org/x">out</a>',
        '<a href="#top">up</a><a href="index.html#top">up</a><a href="mailto:a@b.c">write</a>',
        '<img alt="" src="data:image/png;base64,AAAA">',
        "<h2>B</h2><h3>C</h3><h2>D</h2>",
    ],
)
def test_a_good_page(tmp_path, body):
    assert checked(tmp_path, body) == []


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ('<a href="gone.html">x</a>', "leads nowhere"),
        ('<a href="../outside.html">x</a>', "leads nowhere"),
        ('<a href="#gone">x</a>', "no such place"),
        ('<script src="https://cdn.example.org/a.js"></script>', "from elsewhere"),
        ('<script src="//cdn.example.org/a.js"></script>', "from elsewhere"),
        ('<script src="gone.js"></script>', "leads nowhere"),
        ('<img alt="a" src="http://example.org/a.png">', "from elsewhere"),
        ('<img src="data:image/png;base64,AAAA">', "without alt text"),
        ('<p style="background: url(https://example.org/a.png)">x</p>', "from elsewhere"),
        ("<style>@import 'https://fonts.example.org/css';</style>", "from elsewhere"),
        ("<h1>B</h1>", "headings of level 1"),
        ("<h3>B</h3>", "level 3 follows one of level 1"),
        ('<p id="top">x</p>', "stands here twice"),
    ],
)
def test_a_fault_in_a_page(tmp_path, body, words):
    found = checked(tmp_path, body)
    assert len(found) == 1
    assert words in found[0]


@pytest.mark.parametrize("rel", ["stylesheet", "preload", "icon", "preconnect"])
def test_a_link_that_the_browser_follows_by_itself(tmp_path, rel):
    assert "from elsewhere" in checked(tmp_path, head=f'<link rel="{rel}" href="https://example.org/a">')[0]
    assert checked(tmp_path, head='<link rel="canonical" href="https://example.org/a">') == []


def test_a_style_sheet_that_loads_fonts(tmp_path):
    assert "a.css" in checked(tmp_path, a_css="@font-face { src: url('https://example.org/f.woff') }")[0]


def test_a_page_without_language_and_an_empty_folder(tmp_path):
    assert faults(tmp_path) == [f"{tmp_path.name}: there is no page"]
    (tmp_path / "a.html").write_text("<html><h1>A</h1></html>")
    assert faults(tmp_path) == ["a.html: <html> names no language"]
