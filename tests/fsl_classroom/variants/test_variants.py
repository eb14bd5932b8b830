"""Seeded variants: the public solution fails, their own passes, seeds differ, and every mistake has a diagnosis."""

import sys
from dataclasses import replace

import pytest
import torch

import fsl_classroom as package
from fsl_classroom import all_exercises, check, exercises_with_variants, find, require, verify
from fsl_classroom.checking import check as desk
from fsl_classroom.checking import judge as examiner
from fsl_classroom.checking.check import judge
from fsl_classroom.checking.judge import PATIENCE
from fsl_classroom.checking.outcome import attempt, cases_of, same_outcome, tolerance_of
from fsl_classroom.checking.timelimit import Clock
from fsl_classroom.variants import IMPORTS, variant

FAMILIES = exercises_with_variants()
SEEDS = range(30)


def results(exercise, answer):
    """Yields what an answer does in each case. `verify` tests the gradients, which take most of the time."""
    cases = cases_of(exercise)
    for position in range(len(cases)):
        step = ("case", position)
        yield attempt(exercise, cases, answer, step, Clock(PATIENCE)), tolerance_of(exercise, cases, step)


def alike(exercise, known, answer) -> bool:
    """Returns True if an answer does the same as another one. known: list(results(exercise, the other answer))."""
    pairs = zip(known, results(exercise, answer), strict=True)
    return all(same_outcome(exercise, one, other, tolerance) for (one, tolerance), (other, _) in pairs)


def test_families_cover_the_lessons_and_stand_for_public_exercises():
    assert len(FAMILIES) >= 10
    assert {family[:2] for family in FAMILIES} == {f"{lesson:02d}" for lesson in range(1, 11)}
    assert set(FAMILIES) <= {exercise.id for exercise in all_exercises()}


@pytest.mark.parametrize("family", FAMILIES)
def test_thirty_seeds_refuse_the_public_solution_and_accept_two_ways_of_their_own(family):
    public = find(family).reference
    for seed in SEEDS:
        made = find(f"{family}@{seed}")
        known = list(results(made, made.reference))
        assert not alike(made, known, public), f"seed {seed}: the public solution is right"
        assert alike(made, known, made.right[1]), f"seed {seed}: another way of writing is refused"


@pytest.mark.parametrize("family", FAMILIES)
def test_a_variant_judges_as_it_says(family):
    """`verify` also tests the gradients, and that each wrong answer has its own diagnosis."""
    assert verify(replace(find(f"{family}@3"), id=family)) == []


@pytest.mark.parametrize("family", FAMILIES)
def test_the_public_solution_is_told_what_it_is(family):
    made = find(f"{family}@11")
    verdict = judge(made, find(family).reference)
    assert verdict.kind == "wrong"
    assert verdict.diagnosed is made.wrong[-1]
    assert f"the public solution of {family} is handed in: the variant asks for" in verdict.diagnosed.diagnosis


@pytest.mark.parametrize("family", FAMILIES)
def test_seeds_differ_in_behaviour(family):
    """Among six seeds, at least three ask for different functions."""
    made = find(f"{family}@0")
    different = [list(results(made, made.reference))]
    for seed in range(1, 6):
        other = find(f"{family}@{seed}").reference
        if not any(alike(made, known, other) for known in different):
            different.append(list(results(made, other)))
    assert len(different) >= 3


@pytest.mark.parametrize("family", FAMILIES)
def test_the_statement_holds_the_numbers_and_the_text_is_the_reference(family):
    made = find(f"{family}@5")
    assert made.statement.count("\n- ") >= 2
    assert 1 <= made.difficulty <= 5
    space = {}
    exec(f"{IMPORTS}\n\n{made.written()}", space)  # the text that a teacher reads, with the imports of the set-up cell
    assert judge(made, space[made.name]).kind == "right"
    exec(f"{IMPORTS}\n\n{made.written('    raise NotImplementedError(' + repr('x is not attempted yet') + ')')}", space)
    assert judge(made, space[made.name]).kind == "unattempted"


def test_the_same_seed_gives_the_same_variant_and_find_gives_one_object():
    first, again = find("05.1@7"), variant.__wrapped__("05.1", 7)
    assert first is find("05.1@7")
    assert (first.statement, first.written()) == (again.statement, again.written())
    # A change of the random choices changes assignments that were handed out; this line makes such a change deliberate.
    assert "m = 2 imagined shots" in first.statement


def test_check_works_with_a_variant(capsys):
    made = find("05.1@7")
    answer = made.right[0]
    assert check("05.1@7", answer) is answer
    assert "✓ 05.1@7 Prototypes with a prior: right" in capsys.readouterr().out
    assert check("05.1@7", find("05.1").reference) is made.reference
    printed = capsys.readouterr().out
    assert "the public solution of 05.1" in printed
    assert "def " not in printed


def test_unknown_variants():
    with pytest.raises(LookupError, match=r"exercise 05.4 has no variants. These have: 01.3, "):
        find("05.4@7")
    with pytest.raises(LookupError, match="there is no exercise 05.99"):
        find("05.99@7")
    for wrong in ("05.1@", "05.1@-1", "05.1@x", "05.1@07", "05.1@1234567890"):
        with pytest.raises(ValueError, match="a variant of it like"):
            find(wrong)


def test_require_passes_in_silence_or_says_what_is_wrong(capsys, progress_file):
    require("05.1", find("05.1").right[0])
    require("05.1@7", find("05.1@7").right[0])
    with pytest.raises(
        AssertionError, match=r"(?s)not right yet.\n.*This is what you get when the rows of a class are summed"
    ):
        require("05.1", lambda z, y, n: torch.stack([z[y == k].sum(0) for k in range(n)]))
    with pytest.raises(AssertionError, match="not attempted yet"):
        require("05.1@7", _stub)
    with pytest.raises(LookupError):
        require("05.99", _stub)
    assert capsys.readouterr().out == ""
    assert not progress_file.exists()


def _stub(embeddings, labels, n_way):
    raise NotImplementedError("this exercise is not attempted yet")


def test_require_refuses_the_fallback(capsys):
    for exercise in ("05.1", "05.1@7"):
        handed_out = check(exercise, _stub)
        with pytest.raises(AssertionError, match="This is the reference that check handed out"):
            require(exercise, handed_out)


def test_require_does_not_believe_what_the_notebook_changed(monkeypatch):
    for module, name in ((package, "find"), (package, "check"), (desk, "judge"), (examiner, "first_fault")):
        monkeypatch.setattr(module, name, lambda *given: None)
    monkeypatch.setitem(find("05.1").__dict__, "reference", _stub)
    with pytest.raises(AssertionError, match="05.1 Prototypes: not attempted yet"):
        require("05.1", _stub)
    assert sys.modules["fsl_classroom"] is package
    assert package.find("anything") is None, "the notebook's own state is put back as it was"
