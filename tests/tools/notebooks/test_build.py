"""Building, checking and rewriting the notebooks of small lessons made on the spot, with real kernels."""

from __future__ import annotations

import json
import re
import textwrap
from pathlib import Path

import nbformat
import pytest

from tools.notebooks.build import build, check, main, orphans, rewrite_text
from tools.notebooks.cells import BuildError, is_added

pytestmark = pytest.mark.usefixtures("loops_closed")

GOOD = '''
# %% [markdown]
# # 05 Means
# [solved]({{solution}}) [next]({{next}}) [Binder]({{binder}})

# %%
import os
import socket
from pathlib import Path

# less than a shell command: jupytext must leave this comment alone
print(Path.cwd().name, "FSL_PROGRESS" in os.environ)

# %% tags=["nbval-check-output"]
for host in ("192.0.2.1", "example.org"):
    try:
        socket.create_connection((host, 80), timeout=5)
    except OSError as error:
        print(error)

# %% [markdown]
# ### Exercise 05.1

# %%
def mean(values: list[float]) -> float:
    """The mean of values."""
    # BEGIN SOLUTION
    return sum(values) / len(values)
    # END SOLUTION


def check(exercise, answer):
    try:
        print(exercise, answer([1, 3]))
    except NotImplementedError as error:
        print(error)


mean = check("05.1", mean)
'''
SETTINGS = '[tool.fsl_course]\nrepository = "https://github.com/someone/course"\nbranch = "main"\n'


def course(folder: Path, **lessons: str) -> Path:
    """A checkout with these lessons, e.g. course(tmp_path, _05_means="# %% ..."). Returns its root."""
    (folder / "lessons").mkdir()
    (folder / "pyproject.toml").write_text(SETTINGS)
    for name, text in lessons.items():
        (folder / "lessons" / f"{name[1:]}.py").write_text(text)
    return folder


@pytest.mark.parametrize(
    ("lessons", "message"),
    [
        ({"_05_a": GOOD, "_05_b": GOOD}, "have the same number"),
        ({"_helper": GOOD}, "a lesson is named NN_name.py"),
        ({"_05_a": ""}, "the lesson is empty"),
        ({"_05_a": "# %%\n# only a comment\n"}, "a code cell without code"),
    ],
)
def test_lessons_that_cannot_be_built(tmp_path: Path, capsys, lessons: dict[str, str], message: str):
    assert main([], course(tmp_path, **lessons)) == 1
    assert message in capsys.readouterr().err


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A course of one lesson, built and measured."""
    root = course(tmp_path_factory.mktemp("course"), _05_means=GOOD)
    assert main(["05", "--measure"], root) == 0
    return root


def own_cells(root: Path, version: str) -> list[nbformat.NotebookNode]:
    """The cells that come from the lesson."""
    made = nbformat.read(root / version / "05_means.ipynb", as_version=4)
    return [cell for cell in made.cells if not is_added(cell)]


def printed(root: Path, version: str, cell: int) -> str:
    return "".join(output.text for output in own_cells(root, version)[cell].outputs)


def test_both_versions_run_in_their_folder_with_a_fresh_progress_file(built: Path):
    assert printed(built, "notebooks", 1) == "notebooks True\n"
    assert printed(built, "solutions", 1) == "solutions True\n"
    assert printed(built, "notebooks", 4) == "exercise 05.1 is not attempted yet\n"
    assert printed(built, "solutions", 4) == "05.1 2.0\n"


def test_lessons_run_without_network(built: Path):
    closed = "the network is closed while lessons are built and tested: no connection to "
    assert printed(built, "solutions", 2) == f"{closed}'192.0.2.1'\n{closed}'example.org'\n"


def test_no_trace_of_time_or_machine_is_stored(built: Path):
    for version in ("notebooks", "solutions"):
        text = (built / version / "05_means.ipynb").read_text()
        made = json.loads(text)
        assert set(made["metadata"]) == {"kernelspec", "language_info"}
        assert made["metadata"]["language_info"]["name"] == "python"
        assert "version" not in made["metadata"]["language_info"]
        own = own_cells(built, version)
        assert [cell.metadata for cell in own] == [{}, {}, {"tags": ["nbval-check-output"]}, {}, {}]
        assert [cell.get("execution_count") for cell in own] == [None, 1, 2, None, 3]
        assert text.endswith("}\n")
    assert sorted(path.name for path in built.iterdir()) == [
        "data",
        "lessons",
        "notebooks",
        "pyproject.toml",
        "solutions",
    ]


def test_the_cells_for_colab_and_for_keeping_work_are_there_and_not_run(built: Path):
    added = {}
    for version in ("notebooks", "solutions"):
        cells = nbformat.read(built / version / "05_means.ipynb", as_version=4).cells
        added[version] = {cell.id: place for place, cell in enumerate(cells) if is_added(cell)}
        for cell in (cell for cell in cells if is_added(cell) and cell.cell_type == "code"):
            assert (cell.execution_count, cell.outputs) == (None, [])
            compile(cell.source, cell.id, "exec")
    assert added == {"notebooks": {"05-colab": 1, "05-keep-text": 6, "05-keep": 7}, "solutions": {"05-colab": 1}}


def test_times_and_memory_are_kept(built: Path):
    times = json.loads((built / "data" / "lesson_times.json").read_text())
    assert list(times) == ["05_means"]
    assert list(times["05_means"]) == ["cores", "longest_cell_seconds", "peak_mb", "seconds", "student_seconds"]
    assert times["05_means"]["peak_mb"] > 20  # a kernel alone takes more
    assert times["05_means"]["seconds"] >= times["05_means"]["longest_cell_seconds"] >= 0


def test_only_measuring_touches_times(copy: Path, capsys):
    times = copy / "data" / "lesson_times.json"
    times.write_text("{}\n")
    assert main(["05"], copy) == 0
    assert times.read_text() == "{}\n"
    with pytest.raises(SystemExit):
        main(["05", "--measure", "--jobs", "2"], copy)
    assert "--measure runs one lesson at a time" in capsys.readouterr().err


def test_an_error_fails_the_build_and_nothing_is_written(tmp_path: Path, capsys):
    lesson = "# %%\nfirst = 1\n\n# %%\nsecond = 2\nraise ValueError('3 labels for 4 rows')\n"
    root = course(tmp_path, _05_means=lesson)
    assert main([], root) == 1
    message = capsys.readouterr().err.strip()
    assert message == (
        "solutions/05_means, cell 05-002: ValueError: 3 labels for 4 rows"
        "  (line 2 raise ValueError('3 labels for 4 rows'))"
    )
    assert not list(root.rglob("*.ipynb*"))


def test_everything_wrong_with_the_outputs_is_said_at_once(tmp_path: Path):
    lesson = textwrap.dedent(
        """
        # %%
        import sys, warnings
        from pathlib import Path
        from IPython.display import HTML, display
        warnings.warn("old name")
        # %% tags=["stderr-ok"]
        print("a bar that is meant", file=sys.stderr)
        # %%
        print(Path.cwd())
        # %%
        display(HTML("<img src='data:image/png;base64,AAAA'>"))
        # %% tags=["raises-exception"]
        1 / 0
        # %%
        object()
        """
    )
    root = course(tmp_path, _05_means=lesson)
    with pytest.raises(BuildError) as error:
        build(root, root / "lessons" / "05_means.py")
    problems = re.findall(r"cell 05-.*", str(error.value))
    expected = [
        "cell 05-001: output on stderr",
        "cell 05-003: a path of this machine in the output",
        "cell 05-004: an <img> without alt text",
        "cell 05-005: ZeroDivisionError: division by zero",
        "cell 05-006: an object address",
    ]
    assert [found[: len(start)] for found, start in zip(problems, expected, strict=True)] == expected
    assert "UserWarning: old name" in str(error.value)


@pytest.fixture
def copy(built: Path, tmp_path: Path) -> Path:
    """A copy of the built course to spoil."""
    for path in built.rglob("*.*"):
        if path.is_file():
            (tmp_path / path.relative_to(built)).parent.mkdir(exist_ok=True)
            (tmp_path / path.relative_to(built)).write_bytes(path.read_bytes())
    return tmp_path


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_committed_notebooks_agree(copy: Path):
    assert main(["--check"], copy) == 0


def test_check_shows_what_changed_in_the_lesson(copy: Path, capsys):
    edit(copy / "lessons" / "05_means.py", "sum(values) / len", "sum(values) // len")
    assert main(["--check"], copy) == 1
    message = capsys.readouterr().err
    assert "solutions/05_means.ipynb differs from lessons/05_means.py" in message
    assert "-    return sum(values) / len(values)\n+    return sum(values) // len(values)" in message
    assert "notebooks/05_means.ipynb differs" not in message  # the stub hides this change


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"05-003"', '"abc"', "-[abc] code"),
        ("nbval-check-output", "another-tag", "another-tag"),
        ('"execution_count": 2', '"execution_count": null', "cell 05-003: not executed"),
        ('"name": "stdout"', '"name": "stderr"', "output on stderr"),
        ('"pygments_lexer": "ipython3"', '"version": "3.11.1"', "3.11.1"),
    ],
)
def test_check_finds_a_touched_notebook(copy: Path, old: str, new: str, message: str):
    edit(copy / "notebooks" / "05_means.ipynb", old, new)
    assert message in "\n".join(check(copy, copy / "lessons" / "05_means.py"))


def test_check_finds_missing_and_left_over_notebooks(copy: Path, capsys):
    (copy / "solutions" / "05_means.ipynb").rename(copy / "solutions" / "04_old.ipynb")
    assert main(["--check"], copy) == 1
    message = capsys.readouterr().err
    assert "solutions/05_means.ipynb is missing" in message
    assert list(orphans(copy)) == ["solutions/04_old.ipynb has no lesson lessons/04_old.py; remove it"]
    assert "solutions/04_old.ipynb has no lesson" in message
    assert main(["--check", "99"], copy) == 1
    assert "no lesson 99; there are 05" in capsys.readouterr().err


def test_new_text_keeps_the_outputs_and_new_code_is_refused(copy: Path):
    lesson = copy / "lessons" / "05_means.py"
    before = printed(copy, "solutions", 4)
    edit(lesson, "# # 05 Means", "# # 05 The mean")
    assert main(["05", "--text"], copy) == 0
    assert printed(copy, "solutions", 4) == before
    assert main(["--check"], copy) == 0
    edit(lesson, '# %% tags=["nbval-check-output"]', '# %% tags=["nbval-check-output", "draws"]')
    assert main(["05", "--text"], copy) == 0
    assert "hide-input" in own_cells(copy, "notebooks")[2].metadata.tags
    edit(lesson, "([1, 3])", "([1, 5])")
    with pytest.raises(BuildError, match="code cells changed too; build 05 without --text"):
        rewrite_text(copy, lesson)
