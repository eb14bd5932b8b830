"""The command `assignment` writes valid notebooks that run, one for each student, and says what is wrong with bad input."""

import argparse
import csv
import json
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from fsl_classroom import assignments, exercises_with_variants, find
from tools.notebooks.run import kernel_environment

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.usefixtures("loops_closed")


def command(*words: str) -> int:
    parser = argparse.ArgumentParser()
    assignments.add_parser(parser.add_subparsers(dest="command"))
    return assignments.run(parser.parse_args(["assignment", *words]))


def sources(path: Path) -> list[str]:
    return [cell["source"] for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]]


def printed_by(path: Path, scratch: Path) -> str:
    """Returns all that the cells print when a new kernel runs them."""
    made = nbformat.read(path, as_version=4)
    NotebookClient(made, kernel_name="python3", timeout=60, resources={"metadata": {"path": str(scratch)}}).execute(
        env=kernel_environment(ROOT, scratch)
    )
    outputs = [output for cell in made.cells if cell.cell_type == "code" for output in cell.outputs]
    assert {output.output_type for output in outputs} == {"stream"}
    assert {output.name for output in outputs} == {"stdout"}
    return "".join(output.text for output in outputs)


def test_the_notebooks_run_top_to_bottom(tmp_path, capsys, monkeypatch):
    assert command("--seed", "7", "--exercises", "05.1", "07.3", "--out", str(tmp_path)) == 0
    assert {file.name for file in tmp_path.iterdir()} == {"assignment-7.ipynb", "solved-7.ipynb", "assignment.json"}
    printed = printed_by(tmp_path / "assignment-7.ipynb", tmp_path)
    assert printed.count("not attempted yet") == 2
    assert "○ 05.1@7" in printed
    monkeypatch.setenv("FSL_PROGRESS", str(tmp_path / "progress.json"))
    capsys.readouterr()
    space: dict = {}
    for cell in nbformat.read(tmp_path / "solved-7.ipynb", as_version=4).cells:
        if cell.cell_type == "code":
            exec(cell.source, space)
    lines = capsys.readouterr().out.splitlines()
    assert [line[:8] for line in lines] == ["✓ 05.1@7", "✓ 07.3@7"]


def test_all_variants_and_what_a_notebook_holds():
    made = assignments.notebook(3, assignments.choose([], []))
    nbformat.validate(nbformat.from_dict(made))
    ids = [cell["id"] for cell in made["cells"]]
    assert len(ids) == len(set(ids)) == 3 + 2 * len(exercises_with_variants())
    assert made["metadata"]["kernelspec"]["name"] == "python3"
    answers = [cell["source"] for cell in made["cells"] if cell["id"].endswith("-answer")]
    for family, source in zip(exercises_with_variants(), answers, strict=True):
        variant = find(f"{family}@3")
        assert source.endswith(f'{variant.name} = check("{variant.id}", {variant.name})')
        assert f"exercise {variant.id} is not attempted yet" in source
        assert variant.body not in source
    assert assignments.to_bytes(made) == assignments.to_bytes(assignments.notebook(3, exercises_with_variants()))


def test_lessons_choose_exercises():
    assert assignments.choose(["05", "07"], []) == ["05.1", "05.2", "05.3", "07.3"]
    assert assignments.choose([], ["07.3", "05.1"]) == ["05.1", "07.3"]
    assert assignments.choose([], []) == list(exercises_with_variants())


def test_every_student_has_a_seed_of_their_own(tmp_path, capsys):
    names = tmp_path / "names.txt"
    names.write_text("\ufeffAda Lovelace\n\n  李 雷 \nZoë O'Neil\n", encoding="utf-8")
    out = tmp_path / "out"
    assert command("--seed", "7", "--lessons", "01", "--students", str(names), "--out", str(out)) == 0
    rows = list(csv.DictReader((out / "seeds.csv").read_text(encoding="utf-8").splitlines()))
    assert [row["student"] for row in rows] == ["Ada Lovelace", "李 雷", "Zoë O'Neil"]
    assert len({row["seed"] for row in rows}) == 3
    for row in rows:
        assert int(row["seed"]) == assignments.student_seed(7, row["student"])
        title, *cells = sources(out / row["file"])
        assert row["student"] in title
        assert any(f'check("01.3@{row["seed"]}"' in source for source in cells)
        assert (out / f"solved-{row['seed']}.ipynb").exists()
    plan = json.loads((out / "assignment.json").read_text(encoding="utf-8"))
    assert plan["exercises"] == ["01.3", "01.4"]
    assert plan["students"] == {row["student"]: int(row["seed"]) for row in rows}
    assert assignments.student_seed(7, "Ada Lovelace") == 11492814, "another seed would change work already handed out"
    assert "For the teacher only" in capsys.readouterr().out


def test_nothing_is_overwritten_without_force(tmp_path, capsys):
    words = ("--seed", "7", "--exercises", "05.1", "--out", str(tmp_path))
    (tmp_path / "solved-7.ipynb").write_text("mine", encoding="utf-8")
    assert command(*words) == 1
    assert "solved-7.ipynb already. Choose another folder, or overwrite with --force" in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["solved-7.ipynb"]
    assert (tmp_path / "solved-7.ipynb").read_text(encoding="utf-8") == "mine"
    assert command(*words, "--force") == 0
    assert "05.1@7" in "".join(sources(tmp_path / "solved-7.ipynb"))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--exercises", "05.4"), "no variants of exercise 05.4. There are some of 01.3, 01.4"),
        (("--lessons", "11"), "no variants in lesson 11. There are some in 01, 02"),
        (("--seed", "-1"), "--seed takes 0 to 999999999; got -1"),
        (("--students", "nobody.txt"), "nobody.txt"),
    ],
)
def test_bad_input(tmp_path, capsys, words, says):
    assert command("--seed", "7", *words, "--out", str(tmp_path / "out")) == 1
    assert says in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("\n\n", "holds no names"),
        ("Ada L\nada-l\n", "'Ada L' and 'ada-l' in .* would get the same file"),
        ("Ada\n!!!\n", "'!!!' in .* makes no file name"),
        ("a" * 300, "'aaa.*... in .* is too long for a file name: 300 letters"),
    ],
)
def test_names_that_make_no_files(tmp_path, text, says):
    (tmp_path / "names.txt").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=says):
        assignments.read_names(tmp_path / "names.txt")


def test_a_file_of_names_that_is_no_text_is_named(tmp_path):
    (tmp_path / "names.txt").write_bytes(b"Ada\n\xff\xfe\n")
    with pytest.raises(ValueError, match=r"names.txt is not UTF-8 text"):
        assignments.read_names(tmp_path / "names.txt")
    with pytest.raises(ValueError, match="cannot be read"):
        assignments.read_names(tmp_path)


def test_a_file_in_place_of_the_folder_is_named_without_a_number(tmp_path, capsys):
    (tmp_path / "out").write_text("in the way")
    assert command("--seed", "7", "--exercises", "05.1", "--out", str(tmp_path / "out")) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: {tmp_path / 'out'}")
    assert "Errno" not in error
