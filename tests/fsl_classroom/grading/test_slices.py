"""Finding the statements that an answer needs."""

import ast

import pytest

import fsl_course
from fsl_classroom.grading.slices import answers_of
from fsl_classroom.grading.submissions import Cell

CHECK = 'f = check("05.1", f)'


def needed(*cells: str, exercise: str = "05.1") -> list[str]:
    made = [Cell(i, source, ast.parse(source)) for i, source in enumerate(cells, start=1)]
    return [ast.unparse(node) for _, node in answers_of(made)[exercise].statements]


@pytest.mark.parametrize(
    ("before", "kept"),
    [
        ("import torch, math\ndef f(): return torch", ["import torch", "def f():\n    return torch"]),
        ("from a import b, c as d\ndef f(): return d", ["from a import c as d", "def f():\n    return d"]),
        ("x = train()\ndef f(x): return x", ["def f(x):\n    return x"]),  # a local name is not the global one
        ("x = 1\ndef f():\n    x = 2\n    return x", ["def f():\n    x = 2\n    return x"]),
        ("def f(): return 1\ndef f(): return 2", ["def f():\n    return 2"]),
        ("k = 1\ndef f(): return k\nk = 2", ["def f():\n    return k", "k = 2"]),  # bodies see the latest
        ("k = 1\ndef f(a=k): return a\nk = 2", ["k = 1", "def f(a=k):\n    return a"]),  # defaults see the first
        ("k = 1\nk += 1\ndef f(): return k", ["k = 1", "k += 1", "def f():\n    return k"]),
        ("t = {}\nt[0] = 1\nt.update(a=2)\ndef f(): return t", None),
        ("a, b = 1, 2\ndef f(): return b", None),
        ("if True:\n    k = 1\nelse:\n    k = 2\ndef f(): return k", None),
        ("def g(): return f\ndef f(): return g", None),  # each needs the other
        ("k = 3\nclass A:\n    size = k\ndef f(): return A", None),
        ("k = 3\nf = lambda: [k for _ in range(2)]", None),
        ("from m import *\ndef f(): return thing(1)", None),
        ("f = 1\nprint(f)\nf.train()", ["f = 1"]),
    ],
)
def test_what_is_kept(before, kept):
    kept = kept or [ast.unparse(node) for node in ast.parse(before).body]
    assert needed(before, CHECK) == kept


def test_what_comes_after_the_check_is_left_out_and_the_last_check_counts():
    assert needed("def f(): return 1", CHECK, "def f(): return 2") == ["def f():\n    return 1"]
    assert "return 2" in needed("def f(): return 1", CHECK, "def f(): return 2", CHECK)[-1]


def test_an_earlier_check_stands_for_the_learners_own_function():
    kept = needed(
        "def g(): return 1", 'g = check("05.1", g)', "def f(): return g()", 'check("05.2", f)', exercise="05.2"
    )
    assert kept == ["def g():\n    return 1", "g = g", "def f():\n    return g()"]


def test_variants_keywords_and_other_names_of_check():
    for call in ('fsl_classroom.check("05.1@7", f)', 'check(exercise="05.1", answer=f)', 'print(check("05.1", f))'):
        tree = ast.parse(f"def f(): pass\n{call}")
        answer = answers_of([Cell(1, "", tree)])["05.1"]
        assert answer.exercise == "05.1"
        assert ast.unparse(answer.expression) == "f"
    assert answers_of([Cell(1, "", ast.parse('check("05.1@7", f)'))])["05.1"].asked == "05.1@7"


def test_a_check_without_an_answer_and_one_inside_a_function():
    assert "without a function" in answers_of([Cell(1, "", ast.parse('check("05.1")'))])["05.1"].trouble
    assert answers_of([Cell(1, "", ast.parse('def f(): check("05.1", f)'))]) == {}


def test_a_deleted_check_is_found_by_the_functions_name_in_its_lesson_only():
    cells = [Cell(1, "", ast.parse("def prototypes(): return 1"))]
    names = {"05.1": "prototypes", "06.1": "prototypes"}
    assert list(answers_of(cells, names, {"05"})) == ["05.1"]
    assert answers_of(cells, names) == {}


def test_what_is_defined_after_the_check_is_a_second_answer():
    (answer,) = answers_of([Cell(1, "", ast.parse(f"def f(): return 1\n{CHECK}\ndef f(): return 2"))]).values()
    assert "return 1" in ast.unparse(answer.statements[-1][1])
    assert "return 2" in ast.unparse(answer.later.statements[-1][1])
    (answer,) = answers_of([Cell(1, "", ast.parse(f"k = 1\ndef f(): return k\n{CHECK}\nk = 2"))]).values()
    assert answer.later is None  # the lesson goes on and defines no function


def test_stars_of_the_course_become_names():
    assert fsl_course.__all__
    assert needed("from fsl_course import *\ndef f(): return fit", CHECK)[0] == "from fsl_course import fit"
    assert needed("from fsl_course import *\ndef f(): return 1", CHECK) == ["def f():\n    return 1"]


def test_checks_of_exercises_that_do_not_exist_are_passed_over():
    cells = [Cell(1, "", ast.parse('def f(): pass\ncheck("05.1", f)\ncheck("05.99", f)'))]
    assert list(answers_of(cells, {"05.1": "f"})) == ["05.1"]
