"""Pages for printing stand alone."""

from __future__ import annotations

import re

from tests.docs.test_teaching import TEACHING, tables
from tools.classroom.printable import main as print_pages
from tools.classroom.printable import page


def test_a_page_stands_alone_and_prints(tmp_path, capsys):
    sheets = sorted((TEACHING / "worksheets").glob("*.md"))
    assert print_pages([*map(str, sheets), "--out", str(tmp_path)]) == 0
    for sheet in sheets:
        text = (tmp_path / f"{sheet.stem}.html").read_text(encoding="utf-8")
        assert "@media print" in text
        assert text.count("<table>") == len(tables(sheet.read_text(encoding="utf-8")))
        assert not re.search(r"(src|href)=\"(https?:)?//|<script|@import", text)
    assert print_pages([str(tmp_path / "absent.md"), "--out", str(tmp_path)]) == 1
    assert "absent.md" in capsys.readouterr().err


def test_a_star_is_followed_where_the_shell_does_not(tmp_path, capsys):
    assert print_pages([str(TEACHING / "worksheets" / "*_answers.md"), "--out", str(tmp_path)]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["maml_answers.html", "protonet_answers.html"]
    assert print_pages([str(TEACHING / "*.absent"), "--out", str(tmp_path)]) == 1
    assert "*.absent" in capsys.readouterr().err


def test_titles_are_escaped():
    assert "<title>a &lt;b&gt;</title>" in page("# a <b>\n\ntext")
