"""The command `results` and its tables."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from html.parser import HTMLParser

import pytest

from fsl_course.__main__ import main
from fsl_course.cli import results
from tests.tools.results.test_files import folder, made_row  # noqa: F401 - a fixture
from tests.tools.results.test_files import put as put_file
from tools.results import files

NEEDED = {
    "method", "data", "way", "shot", "mean", "ci95", "seeds", "episodes", "protocol", "inductive", "paper", "command",
}  # fmt: skip


def put(folder, *found, name="proto"):  # noqa: F811
    """Writes a file of rows, and the table of all files."""
    put_file(folder, *found, name=name)
    files.write_table(folder)


def run(*words: str) -> int:
    parser = argparse.ArgumentParser()
    results.add_parser(parser.add_subparsers(dest="command"))
    return results.run(parser.parse_args(["results", *words]))


def test_json_prints_one_whole_row_a_line(capsys):
    assert run("--json") == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(lines) == len(results.measured())
    for line in lines:
        assert set(line) >= NEEDED
        assert type(line["seeds"]) is int
        assert line["data"] == "omniglot"
        assert 0 <= line["mean"] <= 1


def test_filters_choose_rows(capsys):
    assert run("--json", "--method", "baselines", "--protocol", "alphabets", "--way", "20", "--shot", "5") == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {(one["method"], one["protocol"], one["way"], one["shot"]) for one in lines} == {
        ("baselines", "alphabets", 20, 5)
    }
    assert run("--method", "Chance") == 0  # the name in the table
    out = capsys.readouterr().out
    assert out.count("Chance") == 2  # both protocols
    assert "Pixels" not in out


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["--method", "baseline"], 'Did you mean "baselines"?'),
        (["--protocol", "alphabet"], 'Did you mean "alphabets"?'),
        (["--way", "7"], "there are 5, 20."),
        (["--shot", "2"], "there are 1, 5."),
    ],
)
def test_what_is_not_there_gets_the_nearest(words, meant):
    with pytest.raises(ValueError, match="there are no results with") as caught:
        run(*words)
    assert meant in str(caught.value)


def test_a_table_marks_what_lies_below_its_paper(folder):  # noqa: F811
    put(folder, made_row(), made_row(shot=5, mean=0.998, seed_means=[0.998]), made_row(protocol="alphabets"))
    drawn = results.table(folder=folder)
    assert "97.0 ± 0.2* (98.8)" in drawn
    assert "99.8 ± 0.2 (99.7)" in drawn
    assert "* Prototypical, 5-way 1-shot: not known." in drawn
    assert "1000 test episodes" in drawn
    assert "(98.8)" not in results.table("alphabets", folder=folder)


def test_a_transductive_row_stands_apart_and_alone_beside_the_papers_number(folder):  # noqa: F811
    put(folder, *(made_row(label="MAML", method="maml", inductive=inductive) for inductive in (True, False)))
    lines = results.table(folder=folder).splitlines()
    assert any(line.startswith("MAML  ") and line.endswith("97.0 ± 0.2") for line in lines)
    assert any(line.startswith("MAML, transductive") and line.endswith("(98.7)") for line in lines)
    assert any("batch norm saw all queries" in line for line in lines)


def test_html_is_escaped_and_says_what_its_cells_are(folder):  # noqa: F811
    put(folder, made_row(label="<b>&", way=20))
    drawn = results.table(folder=folder, as_html=True)
    assert "<b>" not in drawn
    assert "&lt;b&gt;&amp;" in drawn
    seen: list[tuple[str, str | None]] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag, attrs):
            seen.append((tag, dict(attrs).get("scope")))

    Reader().feed(drawn)
    assert [tag for tag, _ in seen].count("caption") == 1
    assert [scope for tag, scope in seen if tag == "th"] == ["col", "col", "row"]
    assert len(drawn) < 2000


def test_several_seeds_are_told(folder):  # noqa: F811
    put(folder, made_row(seeds=2, seed_numbers=[0, 1], seed_means=[0.96, 0.98]))
    assert "Prototypical (2 seeds)" in results.table(folder=folder)


def test_transfer_names_where_the_weights_come_from(folder):  # noqa: F811
    put(folder, made_row(trained_on="glyphs", protocol="alphabets"), name="transfer")
    drawn = results.table(transfer=True, folder=folder)
    assert "Prototypical, trained on glyphs" in drawn
    assert "trained on" not in results.table(folder=folder)  # and is no main row


def test_without_a_protocol_each_has_a_table_of_its_own(folder):  # noqa: F811
    put(folder, made_row(mean=0.97), made_row(protocol="alphabets", mean=0.61, seed_means=[0.61]))
    drawn = results.table(None, folder=folder)
    assert drawn == f"{results.table('random', folder=folder)}\n\n{results.table('alphabets', folder=folder)}"
    assert "97.0" in drawn
    assert "61.0" in drawn
    assert results.table(None, folder=folder, as_html=True).count("<table>") == 2


def test_nothing_measured_is_said_in_words(folder):  # noqa: F811
    files.write_table(folder)
    with pytest.raises(ValueError, match="nothing was measured yet"):
        results.table(transfer=True, folder=folder)


def test_the_options_need_no_torch():
    code = (
        "import sys, argparse; sys.modules['torch'] = None\n"
        "from fsl_course.cli import results\n"
        "p = argparse.ArgumentParser(); results.add_parser(p.add_subparsers()); p.parse_args(['results', '--help'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--transfer" in done.stdout


def test_the_command_line_knows_it(capsys):
    assert main(["results", "--json", "--way", "5"]) == 0
    assert {json.loads(line)["way"] for line in capsys.readouterr().out.splitlines()} == {5}
    assert main(["results", "--method", "baselin"]) == 1
    assert 'Did you mean "baselines"?' in capsys.readouterr().err
