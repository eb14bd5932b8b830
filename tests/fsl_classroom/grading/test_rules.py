"""The rules that are checked on an answer's code. test_grade.py tries many more answers."""

import ast

import pytest

import fsl_course.methods.prototypical
from fsl_classroom.grading import rules
from fsl_classroom.grading.slices import answers_of
from fsl_classroom.grading.submissions import Cell
from tests.fsl_classroom.grading import zoo


def found(cell: str, exercise: str = "05.1") -> str | None:
    source = f"{zoo.IMPORTS}\n{cell}"
    return rules.suspicion(answers_of([Cell(1, source, ast.parse(source))])[exercise])


def test_what_the_lesson_imports_may_be_used_under_every_path():
    for body in ("EpisodeSampler", "PrototypicalNetwork", "mean_and_ci95", "package.PrototypicalNetwork"):
        assert found(f'def f(): return {body}\ncheck("05.1", f)') is None, body
    inside = "def f():\n    from fsl_course.episodes import Episode as E\n    return E\n"
    assert found(f'{inside}check("05.1", f)') is None


@pytest.mark.parametrize("body", ["package.prototypes", "[package]", "check", "progress", "package.squared_distances"])
def test_the_rest_of_the_package_may_not(body):
    assert zoo.REFERENCE in found(f'def f(): return {body}\ncheck("05.1", f)')
    assert fsl_course.methods.prototypical.prototypes  # it exists, so the rules have something to forbid


@pytest.mark.parametrize(
    "line",
    ["sys.maxsize", "inspect.signature(f)", "net.modules()", "timeit.default_timer()", "type(x).__name__", "x.sys_"],
)
def test_harmless_neighbours_of_what_is_refused(line):
    assert found(f'import sys, timeit\nnet = x = 1\ndef f(): return {line}\ncheck("05.1", f)') is None


def test_words_in_documentation_are_not_code():
    assert found('def f():\n    """Never use __globals__."""\ncheck("05.1", f)') is None


@pytest.mark.parametrize(
    "line",
    ["sys.modules", "torch.sys", "[s for s in sys.modules]", "f'{x.__code__}'", "'{0.__class__.__mro__}'", "sys"],
)
def test_ways_into_the_checker(line):
    assert zoo.CHECKER in found(f'import sys\nx = 1\ndef f(): return {line}\ncheck("05.1", f)')


def test_every_function_of_the_lessons_has_a_name():
    assert rules.function_names()["05.1"] == "prototypes"
    assert len(rules.function_names()) > 50
