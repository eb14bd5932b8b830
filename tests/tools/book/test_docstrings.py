"""tools/book/docstrings.py: plain docstrings as reStructuredText that Sphinx reads without a complaint."""

import docutils.core
import pytest

from tools.book.docstrings import inline, signature, to_rst


def html(text):
    """What docutils makes of a docstring; any complaint is an error."""
    made = "\n".join(to_rst(text.split("\n")))
    return docutils.core.publish_parts(made, writer="html5", settings_overrides={"halt_level": 2, "report_level": 2})[
        "body"
    ]


def test_shapes_become_code():
    assert '<span class="docutils literal">[N*Q, N]</span>' in html("One task -> logits [N*Q, N].")


@pytest.mark.parametrize(
    "text", ["theta_ - lr * grad, |q|^2 *", "`open and _private_ *args **kwargs", "a |b| c`_ d_", "[T]s and `x`s"]
)
def test_what_looks_like_markup_is_text(text):
    assert "system-message" not in html(text)
    assert "<em>" not in html(text)


def test_aligned_names_become_a_list():
    made = html("encoder:  pictures [B] -> embeddings\nlr, steps: rate\n          and number\nThe rest.")
    assert made.count("<li>") == 2
    assert "rate and number" in made
    assert "<p>The rest.</p>" in made


def test_what_is_aligned_by_hand_keeps_its_spaces():
    made = html("Layouts:\n    path/class/a.png    the class\n    path/b.png          none")
    assert "path/class/a.png    the class\npath/b.png          none" in made


def test_both_kinds_of_ticks():
    assert inline("`a` and ``b``") == r"\ ``a``\  and \ ``b``\ ".strip()


def test_two_columns_become_a_list():
    made = html("Files:\n\nbase         what every learner defines\nmeta_lstm    a learned optimiser")
    assert made.count("<li>") == 2
    assert '<span class="docutils literal">meta_lstm</span>: a learned optimiser' in made


def test_numbered_rows_stay_one_list():
    made = html("0. ``_system``    files\n1. ``data``, ``nets``    pictures\n2. ``methods``")
    assert made.count("<ol") == 1
    assert made.count("<li>") == 3
    assert '<span class="docutils literal">_system</span>: files' in made


def test_a_default_that_is_no_python_can_be_read():
    assert signature(None, "", "", None, None, "(a: dict = <factory>)", "") == ("(a: dict = ...)", "")
    assert signature(None, "", "", None, None, "(a)", "") is None
