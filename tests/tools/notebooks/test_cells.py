"""Stubs, marks, ids and placeholders: the cells that a lesson becomes."""

from __future__ import annotations

import ast
import textwrap
from pathlib import Path

import nbformat
import pytest

from tools.notebooks.cells import STUDENT, BuildError, notebook, solved_source, student_source

SETTINGS = '[tool.fsl_course]\nrepository = "https://github.com/someone/course"\nbranch = "main"\n'


def course(folder: Path, **lessons: str) -> Path:
    """A checkout with these lessons, e.g. course(tmp_path, _05_means="# %% ..."). Returns its root."""
    (folder / "lessons").mkdir()
    (folder / "pyproject.toml").write_text(SETTINGS)
    for name, text in lessons.items():
        (folder / "lessons" / f"{name[1:]}.py").write_text(text)
    return folder


def code(text: str) -> str:
    return textwrap.dedent(text).strip("\n")


PLAIN = code(
    '''
    def mean(values):
        """Their mean."""
        # BEGIN SOLUTION
        total = sum(values)
        return total / len(values)
        # END SOLUTION


    mean = check("05.1", mean)
    '''
)
NESTED = code(
    """
    @functools.lru_cache
    def make(power):
        def inner(value):
            # BEGIN SOLUTION
            def helper(base):
                return base**power

            return helper(value)
            # END SOLUTION

        return inner


    make = check("05.2", make)
    """
)
TWO = code(
    """
    class Net:
        def forward(self, inputs):
            # BEGIN SOLUTION
            return inputs.flatten()
            # END SOLUTION

    check("05.3", Net)

    # EXERCISE 05.4
    def second(argument):
        result = argument
        # BEGIN SOLUTION
        result = result + 41
        # END SOLUTION
        return result
    """
)


def test_the_stub_replaces_exactly_the_body():
    assert student_source(PLAIN, "here") == code(
        '''
        def mean(values):
            """Their mean."""
            # YOUR CODE HERE
            raise NotImplementedError("exercise 05.1 is not attempted yet")


        mean = check("05.1", mean)
        '''
    )


@pytest.mark.parametrize("source", [PLAIN, NESTED, TWO])
def test_student_cells_parse_and_leak_nothing(source: str):
    student = student_source(source, "here")
    ast.parse(student)
    solution = [part.partition("# END SOLUTION")[0] for part in source.split("# BEGIN SOLUTION")[1:]]
    lines = [line.strip() for part in solution for line in part.splitlines() if len(line.strip()) >= 12]
    assert lines
    assert not [line for line in lines if line in student]
    assert "SOLUTION" not in student


def test_stubs_keep_decorators_nesting_and_their_own_exercise():
    nested, two = student_source(NESTED, "here"), student_source(TWO, "here")
    assert "@functools.lru_cache\ndef make(power):\n    def inner(value):\n        # YOUR CODE HERE\n" in nested
    assert nested.endswith('    return inner\n\n\nmake = check("05.2", make)')
    assert '        raise NotImplementedError("exercise 05.3 is not attempted yet")\n\ncheck("05.3", Net)' in two
    assert '    raise NotImplementedError("exercise 05.4 is not attempted yet")\n    return result' in two
    assert "# EXERCISE" not in two


def test_the_solved_version_loses_only_its_marks():
    kept = [line for line in TWO.split("\n") if "SOLUTION" not in line and "# EXERCISE" not in line]
    assert solved_source(TWO, "here") == "\n".join(kept)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("    # END SOLUTION\n", "", "`# BEGIN SOLUTION` without `# END SOLUTION`"),
        ("    # BEGIN SOLUTION\n", "", "`# END SOLUTION` without `# BEGIN SOLUTION`"),
        ("    total =", "    # BEGIN SOLUTION\n    total =", "a second `# BEGIN SOLUTION`"),
        ("# BEGIN SOLUTION", "#begin solution", "write `# BEGIN SOLUTION` and `# END SOLUTION` exactly"),
        ("    # BEGIN SOLUTION", "  # BEGIN SOLUTION", "indent `# BEGIN SOLUTION` and `# END SOLUTION` like the code"),
        ('check("05.1", mean)', "mean", "which exercise is this?"),
        ("    total = sum(values)\n    return total / len(values)\n", "", "no code between"),
        ("def mean(values):", "def mean(values:", "not plain Python, line 1"),
    ],
)
def test_misplaced_marks_are_errors_that_name_the_cell(old: str, new: str, message: str):
    assert old in PLAIN
    with pytest.raises(BuildError) as error:
        student_source(PLAIN.replace(old, new), "cell 7")
    assert str(error.value).startswith("cell 7: ")
    assert message in str(error.value)


@pytest.mark.parametrize(
    "source",
    [
        "# BEGIN SOLUTION\ntotal = 1\n# END SOLUTION\ncheck('05.1', total)",
        "for i in range(3):\n    # BEGIN SOLUTION\n    total = i\n    # END SOLUTION\ncheck('05.1', total)",
        "def f():\n    # BEGIN SOLUTION\n    return 1\n\ng = f\n    # END SOLUTION\ncheck('05.1', f)",
        "def f():\n    return 1\n# BEGIN SOLUTION\ng = f\n# END SOLUTION\ncheck('05.1', f)",
    ],
)
def test_a_solution_is_the_body_of_a_function(source: str):
    with pytest.raises(BuildError, match="cell 7: the code between .* is not the body of a function"):
        student_source(source, "cell 7")


LESSON = """
# %% [markdown]
# # 05 Means
# %%
# less than a shell command: jupytext must leave this comment alone
total = 1
# %% tags=["nbval-check-output"]
print(total)
"""


def test_conversion_is_deterministic_and_keeps_tags(tmp_path: Path):
    root = course(tmp_path, _05_means=LESSON)
    lesson = root / "lessons" / "05_means.py"
    one, two = (nbformat.writes(notebook(root, lesson, STUDENT)) for _ in range(2))
    assert one == two
    made = notebook(root, lesson, STUDENT)
    ids = ["05-001", "05-colab", "05-002", "05-003", "05-keep-text", "05-keep"]
    assert [cell.id for cell in made.cells] == ids
    assert made.cells[3].metadata == {"tags": ["nbval-check-output"]}
    assert made.metadata.kernelspec.name == "python3"
    assert "version" not in made.metadata.language_info
    assert "# less than a shell command" in made.cells[2].source
    assert "https://github.com/someone/course@main" in made.cells[1].source


def test_placeholders_are_filled(tmp_path: Path):
    text = "# %% [markdown]\n# {{repository}} {{branch}} {{lesson}} {{solution}} {{next}} {{ binder }} {{colab}}\n"
    root = course(tmp_path, _05_means=text, _07_last=text)
    first, last = (notebook(root, root / "lessons" / name, STUDENT).cells[0].source.split() for name in LESSONS)
    assert first == [
        "https://github.com/someone/course",
        "main",
        "05_means",
        "../solutions/05_means.ipynb",
        "../notebooks/07_last.ipynb",
        "https://mybinder.org/v2/gh/someone/course/main?urlpath=lab/tree/notebooks/05_means.ipynb",
        "https://colab.research.google.com/github/someone/course/blob/main/notebooks/05_means.ipynb",
    ]
    assert last[4] == "../README.md"


LESSONS = ("05_means.py", "07_last.py")


def test_unknown_placeholders_and_binder_elsewhere_are_errors(tmp_path: Path):
    root = course(tmp_path, _05_a="# %% [markdown]\n# takes {{seconds}}\n", _06_b="# %% [markdown]\n# {{binder}}\n")
    with pytest.raises(BuildError, match=r"05_a.py, cell 05-001: unknown placeholder \{\{seconds\}\}"):
        notebook(root, root / "lessons" / "05_a.py", STUDENT)
    (root / "pyproject.toml").write_text(SETTINGS.replace("github.com", "git.example.org"))
    with pytest.raises(BuildError, match=r"needs a repository on https://github.com/"):
        notebook(root, root / "lessons" / "06_b.py", STUDENT)
