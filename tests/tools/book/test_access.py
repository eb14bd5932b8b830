"""tools/book/access.py: what is mended in finished pages, and what is left alone."""

import pytest

from tools.book.access import mended


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("<p>support set (支持集)</p>", '<p>support set (<span lang="zh-Hans">支持集</span>)</p>'),
        ("<td>一，二</td>", '<td><span lang="zh-Hans">一，二</span></td>'),
        ('<img alt="支持集"><title>支持集</title>', '<img alt="支持集"><title>支持集</title>'),
        ("<script>'支持集'</script>", "<script>'支持集'</script>"),
        ("<p>été, θ′</p>", "<p>été, θ′</p>"),
    ],
)
def test_chinese_words_name_their_language(given, wanted):
    assert mended(given) == wanted


def test_header_cells_have_a_scope_and_are_not_empty():
    table = (
        '<table><thead><tr><th class="head"><p></p></th><th class="head"><p>mean</p></th></tr></thead>'
        "<tbody><tr><th>0</th><td>1</td></tr></tbody></table>"
    )
    made = mended(table)
    assert "<td></td>" in made
    assert '<th scope="col" class="head"><p>mean</p></th>' in made
    assert '<th scope="row">0</th>' in made
    assert mended(made) == made


def test_parameters_of_a_signature_are_no_list_of_definitions():
    entry = '<dl class="py function"><dt class="sig sig-object py" id="f">f(<dl>\n<dd>x,</dd>\n</dl>)</dt><dd>Words.</dd></dl>'
    assert mended(entry) == (
        '<dl class="py function"><dt class="sig sig-object py" id="f">f(<div class="sig-parameters">\n<div>x,</div>\n</div>)</dt>'
        "<dd>Words.</dd></dl>"
    )


def test_what_is_folded_has_a_name():
    folded = '<summary aria-label="Toggle hidden content"><p>Show the solution</p></summary>'
    assert mended(folded) == "<summary><p>Show the solution</p></summary>"
    pages = '<a class="reference internal" href="a.html">The <code>kit</code></a><details><summary><i></i></summary></details>'
    assert '<summary aria-label="Pages below The kit"><i>' in mended(pages)


def test_a_link_takes_no_name_from_another():
    link = '<li><a class="reference internal" href="a.html">'
    two = f"{link}A</a></li>{link}B</a><details><summary>"
    assert mended(two).count("aria-label") == 1
    assert 'aria-label="Pages below B"' in mended(two)


def test_the_difficulty_of_an_exercise_is_set_apart():
    heading = (
        '<h3>Exercise 05.6 ★ <em>Cosine</em> (again)  (difficulty 2/5, 5 min)<a class="headerlink" href="#x">#</a></h3>'
    )
    assert '(again)  <span class="effort">difficulty 2/5, 5 min</span><a class="headerlink"' in mended(heading)
    contents = '<a class="reference internal nav-link" href="#x">Exercise 05.6 ★ Cosine (difficulty 2/5, 5 min)</a>'
    assert mended(contents).endswith(">Exercise 05.6 ★ Cosine</a>")
