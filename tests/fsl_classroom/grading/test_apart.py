"""Answers that are judged apart: the same verdicts as in a notebook, and nothing in their process to steal or to bend."""

import csv
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fsl_classroom import all_exercises, exercises_with_variants, find
from fsl_classroom.__main__ import main
from fsl_classroom.checking.check import judge
from fsl_classroom.grading import apart, confinement
from fsl_classroom.grading.trials import APART, TOGETHER, kind_of
from tests.fsl_classroom.grading import zoo
from tests.fsl_classroom.grading.walls import judged

UNCONFINED = ["--unconfined"] if confinement.problem() else []


def bending(*lines: str) -> str:
    """Returns a wrong answer that runs these lines first and goes on whatever they do."""
    tried = "".join(f"    try:\n        {line}\n    except BaseException: pass\n" for line in lines)
    return zoo.answer(tried + zoo.WRONG)


def stealing(expression: str, before: str = "") -> str:
    """Returns an answer that calls what this expression finds, and is wrong if that fails."""
    return zoo.answer(
        f"    try:\n        return ({expression})(embeddings, labels, n_way)\n    except BaseException: pass\n{zoo.WRONG}",
        before,
    )


# Ways to a pass without the right answer that guards by name have missed, and one that reads memory.
FRAUDS = {
    "operator's attrgetter": stealing(
        'attrgetter("sys."+"modules")(torch)["fsl_course.methods.proto"+"typical"].prototypes', "from operator import *"
    ),
    "attrgetter in a thread": zoo.answer(
        "    found = []\n    def run():\n"
        '        found.append(attrgetter("sys."+"modules")(torch)["fsl_course.methods.proto"+"typical"].prototypes)\n'
        "    thread = threading.Thread(target=run)\n    thread.start()\n    thread.join()\n"
        "    return found[0](embeddings, labels, n_way) if found else embeddings\n",
        "import threading\nfrom operator import *",
    ),
    "globals of a method": stealing(
        'attrgetter("__glo"+"bals__")(PrototypicalNetwork.score)["prototypes"]', "from operator import *"
    ),
    "a mode that is left on": zoo.answer(
        "    Always().__enter__()\n    return embeddings.new_zeros(n_way, embeddings.shape[1])\n",
        "from torch.overrides import TorchFunctionMode\nclass Always(TorchFunctionMode):\n"
        "    def __torch_function__(self, f, types, args=(), kwargs=None):\n"
        "        name = getattr(f, '__name__', '')\n"
        "        if name in ('any', 'all'): return torch._C._nn and torch.tensor(name == 'all')\n"
        "        return f(*args, **(kwargs or {}))\n",
    ),
    "the kernel of any": bending(
        "L = torch.library.Library('aten', 'IMPL')", "L.impl('any', lambda x: torch.zeros((), dtype=torch.bool), 'CPU')"
    ),
    "the kernel of eq": bending(
        "L = torch.library.Library('aten', 'IMPL')",
        "L.impl('eq.Tensor', lambda a, b: torch.ones(a.shape, dtype=torch.bool), 'CPU')",
    ),
    "mock's patch.dict": stealing("holding.in_dict['fsl_course.methods.proto' + 'typical'].prototypes",
        "from unittest import mock\nholding = mock.patch.dict('sys.' + 'modules')\n"
        "try: holding.start()\nexcept BaseException: pass"),
    "xmlrpc's resolver": stealing(
        "resolve_dotted_attribute(torch, 'sys.modules'.replace('z', ''))['fsl_course.methods.proto' + 'typical'].prototypes",
        "from xmlrpc.server import resolve_dotted_attribute",
    ),
    "unittest's loader": bending("import unittest", "unittest.TestLoader().loadTestsFromName('sys', torch)"),
    "another answer's text in memory": zoo.answer(
        "    import numpy as np\n    try:\n"
        "        step = 2**20\n        base = np.zeros(1, dtype=np.uint8)\n"
        "        view = np.lib.stride_tricks.as_strided(base, (2**26,), (1,))\n"
        "        raw = bytes(view)\n"
        "        place = raw.find(b'SECRET-OF-' + b'ANOTHER')\n"
        "        raise RuntimeError('found ' + raw[place : place + 40].decode('latin1') if place >= 0 else 'nothing')\n"
        "    except RuntimeError: raise\n    except BaseException: pass\n" + zoo.WRONG
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> dict[str, dict[str, str]]:
    """The row of every fraud, of a neighbour before and after them, and of an exercise on functions."""
    folder = tmp_path_factory.mktemp("frauds")
    for name, cell in FRAUDS.items():
        zoo.write(folder / name, [zoo.IMPORTS, cell])
    secret = zoo.answer(zoo.RIGHT, "SECRET = 'SECRET-OF-ANOTHER student'\n")
    for name in ("aaa neighbour", "zzz neighbour"):
        zoo.write(folder / name, [zoo.IMPORTS, secret.replace("mean(0)", "mean(len(SECRET) * 0)")])
    assert main(["grade", str(folder), "--seconds", "60", "--jobs", "1", *UNCONFINED]) == 0
    lines = (folder / "grades.csv").read_text(encoding="utf-8").splitlines()
    return {row["student"]: row for row in csv.DictReader(lines) if row["exercise"] == "05.1"}


@pytest.mark.parametrize("name", FRAUDS)
def test_nothing_passes_but_a_right_answer(rows, name):
    assert rows[name]["passed"] == "false"
    assert rows[name]["diagnosis"] not in ("", "not attempted")
    assert "SECRET" not in rows[name]["diagnosis"]


def test_neighbours_pass_and_the_table_says_how_they_were_judged(rows):
    for name in ("aaa neighbour", "zzz neighbour"):
        assert (rows[name]["passed"], rows[name]["judged"]) == ("true", "apart")


def test_most_exercises_are_judged_apart():
    kinds = {exercise.id: kind_of(exercise) for exercise in all_exercises()}
    assert list(kinds.values()).count(APART) > len(kinds) / 2
    assert (kinds["05.1"], kinds["05.2"], kinds["01.2"]) == (APART, APART, APART)
    # a function, a module, and laws that watch an answer from inside its process
    assert {kinds[id] for id in ("05.7", "03.9", "01.3", "06.3", "21.2")} == {TOGETHER}
    assert [id for id in exercises_with_variants() if kind_of(find(f"{id}@7")) == TOGETHER] == [
        "07.3",
        "08.2",
        "10.1",
        "10.2",
    ]


@pytest.mark.parametrize(
    "id", ["00.2", "02.2", "03.3", "04.4", "05.1", "05.3", "06.2", "07.4", "09.1", "10.4", "11.3", "05.1@7"]
)
def test_verdicts_are_those_of_a_notebook(id):
    exercise = find(id)
    assert judged(exercise, exercise.right[0]).kind == "right"
    for entry in exercise.wrong[:3]:
        here, there = judge(exercise, entry.answer, 10.0, busy=3.0), judged(exercise, entry.answer)
        assert (there.kind, there.lines) == ("wrong", here.lines)
        assert there.diagnosed is here.diagnosed


def test_a_drawing_answer_draws_on_in_the_judges_generator():
    exercise = find("03.6")
    assert judged(exercise, exercise.right[0]).kind == "right"


def test_what_an_answer_leaves_changed_is_told():
    exercise = find("05.1")

    def spoils(embeddings, labels, n_way):
        torch.set_default_dtype(torch.float64)
        return exercise.reference(embeddings, labels, n_way)

    verdict = judged(exercise, spoils)
    assert verdict.kind == "wrong"
    assert "the default dtype of PyTorch changed" in " ".join(verdict.lines)


def test_errors_keep_their_names_words_and_bases():
    exercise = find("05.1")

    class OwnError(KeyError):
        pass

    def raises(embeddings, labels, n_way):
        raise OwnError("mine")

    assert judged(exercise, raises).lines[1].startswith("OwnError: 'mine'")
    multiplies = lambda embeddings, labels, n_way: embeddings @ labels  # noqa: E731
    assert judged(exercise, multiplies).lines == judge(exercise, multiplies).lines


def test_an_answer_without_code_and_one_with_too_much_to_say():
    exercise = find("05.1")

    def nothing(embeddings, labels, n_way):
        raise NotImplementedError("exercise 05.1 is not attempted yet")

    assert judged(exercise, nothing).kind == "unattempted"
    verdict = judged(exercise, lambda embeddings, labels, n_way: list(range(10**7)))
    assert "more than 200000 items" in " ".join(verdict.lines)


def test_the_process_of_an_answer_may_load_nothing_that_solves_an_exercise():
    for exercise in all_exercises():
        for name in apart.open_modules(exercise.id):
            builds = exercise.id in ("06.6", "26.2", "26.4")
            assert not name.startswith("fsl_course.methods") or builds, (exercise.id, name)
    closed = apart._Closed(apart.open_modules("05.1"))
    for name in (
        "fsl_course.methods",
        "fsl_course.methods.prototypical",
        "fsl_course.evaluation",
        "fsl_course.inner_loop",
    ):
        with pytest.raises(ModuleNotFoundError, match="not at hand"):
            closed.find_spec(name)
    assert closed.find_spec("fsl_course.episodes.episode") is None
    with pytest.raises(ModuleNotFoundError):
        apart._Closed(apart.open_modules("01.2")).find_spec("fsl_course.episodes")


def test_what_forks_the_workers_has_imported_no_exercise_and_no_judge():
    program = (
        "import sys; from fsl_classroom.grading import apart, cradle; apart.warm_up(); "
        "print([n for n in sys.modules if n.startswith(('fsl_classroom.exercises', 'fsl_classroom.variants', "
        "'fsl_classroom.checking.judge', 'fsl_classroom.checking.check', 'fsl_classroom.checking.catalogue', "
        "'fsl_classroom.checking.compare', 'fsl_course.methods', 'fsl_course.inner_loop', 'fsl_course.evaluation'))])"
    )
    root = Path(__file__).resolve().parents[3]
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, cwd=root)
    assert (ran.returncode, ran.stdout.strip()) == (0, "[]"), ran.stderr
