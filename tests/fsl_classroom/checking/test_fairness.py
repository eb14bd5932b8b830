"""`check` accepts every right way of writing an answer, and says of a wrong one only what is true of it."""

import math
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from fsl_classroom import Case, check, verify
from fsl_classroom.checking.check import judge
from fsl_classroom.checking.model import Property, Wrong
from fsl_classroom.checking.sandbox import reads_nothing, same_words
from fsl_classroom.checking.timelimit import Clock


def with_cases(toy, reference, *cases, **more):
    """Returns the exercise with another reference and these cases."""
    plain = {"properties": (), "gradient": (), "wrong": (), **more}
    return replace(toy, reference=reference, cases=lambda generator: list(cases), **plain)


def test_float32_tables_and_constants_pass_in_float64_and_are_named(toy, capsys):
    def table(embeddings, labels, n_way):
        result = torch.zeros(n_way, embeddings.shape[1])  # float32, whatever comes in
        for k in range(n_way):
            result[k] = embeddings[labels == k].mean(0)
        return result

    def constant(embeddings, labels, n_way):
        return toy.reference(embeddings, labels, n_way) * torch.tensor(0.1) * torch.tensor([10.0])

    for answer in (table, constant):
        assert check(toy, answer) is answer
    assert "Note: your function answers in float32 where it is given float64." in capsys.readouterr().out

    def coarse(embeddings, labels, n_way):
        return table(embeddings.half().to(embeddings.dtype), labels, n_way)

    assert judge(toy, coarse).kind == "wrong"


def test_the_order_of_keys_is_free(toy):
    def step(params):
        return {name: value - 0.1 * value**3 for name, value in params.items()}

    params = {"b": torch.tensor([1.0, 2.0]), "a": torch.tensor([[3.0]]), "c": torch.tensor([0.5])}
    exercise = with_cases(toy, step, Case("three tensors", (params,)), gradient=(0,))
    for order in ("abc", "cba", "bca"):
        answer = lambda params, order=order: {name: step(params)[name] for name in order}  # noqa: E731
        assert judge(exercise, answer).kind == "right"
    swapped = lambda params: dict(zip("abc", step(params).values(), strict=True))  # noqa: E731
    assert judge(exercise, swapped).kind == "wrong"


RINGS = [Case(f"number {n}", (n,)) for n in range(8)]


@pytest.mark.parametrize("kind", [np.bool_, torch.tensor, bool], ids=["numpy", "tensor", "python"])
def test_a_bool_may_come_from_numpy_or_torch(toy, kind):
    exercise = with_cases(toy, lambda n: n > 4, *RINGS)
    assert judge(exercise, lambda n: kind(n > 4)).kind == "right"
    assert judge(exercise, lambda n: kind(n > 3)).kind == "wrong"
    assert judge(exercise, lambda n: torch.tensor([n > 4])).kind == "wrong"  # one dimension is one too many


@pytest.mark.parametrize("says", [True, False])
def test_always_and_never_are_told_first_and_no_cause_is_claimed(toy, capsys, says):
    causes = (
        Wrong("blind", lambda n: False, "the wrong things are looked at", "Look at n."),
        Wrong("deaf", lambda n: True, "the bound is below every number", "Raise it."),
    )
    exercise = with_cases(toy, lambda n: n > 4, *RINGS, wrong=causes)
    check(exercise, lambda n: says)
    said = capsys.readouterr().out
    assert ("always says True: all 8 cases give True, but 5 of them ask for False" in said) is says
    assert ("never says True: all 8 cases give False, but 3 of them ask for True" in said) is not says
    assert "A common cause: the " in said
    assert "This is what you get" not in said


def test_a_broken_law_alone_claims_no_cause_and_its_numbers_count(toy, capsys):
    def moved(amount):
        return lambda x, flag=None: x + amount * (flag is not None)

    def holds(answer, reference):
        gap = float(answer(torch.zeros(1), flag=1))
        return None if abs(gap) < 1e-6 else f"the result moves by {gap:g}."

    wrong = (Wrong("by one", moved(1.0), "the flag counts as one", "Leave the flag alone."),)
    law = Property("the flag changes nothing", holds)
    exercise = with_cases(toy, moved(0.0), Case("zeros", (torch.zeros(3),)), properties=(law,), wrong=wrong)
    check(exercise, moved(1.0))
    assert "A common cause: the flag counts as one." in capsys.readouterr().out
    assert judge(exercise, moved(2.0)).diagnosed is None  # the same words with another number are another mistake
    random = replace(exercise, same=lambda got, expected: None)
    assert judge(random, moved(2.0)).diagnosed is wrong[0]  # where results may differ, their numbers say nothing


def test_numbers_in_sentences_count_only_where_asked():
    assert same_words("off by 0.5 in 'a'", "off by 0.7 in 'b'")
    assert not same_words("off by 0.5 in 'a'", "off by 0.7 in 'b'", numbers=True)
    assert same_words("off by 0.5", "off by 0.501", numbers=True)
    assert same_words("off by nan and inf", "off by nan and inf", numbers=True)
    assert not same_words("the gap is 0.5", "the sum is 0.5", numbers=True)


def test_every_spelling_of_a_mistake_gets_its_diagnosis(toy):
    def halved(embeddings, labels, n_way):
        return torch.stack([embeddings[labels == k].sum(0) / 2 for k in range(n_way)])

    assert judge(toy, halved).diagnosed is None
    sums, *others = toy.wrong
    both = replace(toy, wrong=(replace(sums, also=(halved,)), *others))
    assert judge(both, halved).diagnosed is both.wrong[0]
    assert verify(both) == []
    twice = replace(toy, wrong=(replace(sums, also=(sums.answer,)), *others))
    assert any("have the same outcome" in problem for problem in verify(twice))
    right = replace(toy, wrong=(replace(sums, also=(toy.right[0],)), *others))
    assert any("is not refused" in problem for problem in verify(right))


def test_verify_holds_the_reference_against_finite_differences(toy):
    half = lambda x: (x + x.detach()) ** 2 / 4  # noqa: E731
    broken = with_cases(toy, half, Case("three numbers", (torch.ones(3),)), gradient=(0,))
    assert any("finite difference" in problem for problem in verify(broken))


def test_time_that_others_take_does_not_count_three_times_over():
    clock = Clock(0.3, busy=3.0)
    assert clock.run(lambda: time.sleep(0.45))[2] is False  # asleep, as on a machine that works for others
    assert math.isclose(clock.used, 0.15, abs_tol=0.1)

    def loop():
        while True:
            pass

    assert Clock(0.2, busy=3.0).run(loop)[2] is True
    assert Clock(0.2).run(lambda: time.sleep(0.45))[2] is True


def test_an_answer_that_looks_at_nothing_makes_no_mistake_of_those_who_look(toy):
    causes = (
        Wrong("blind", lambda n: n > 100, "the bound is above every number", "Lower it."),
        Wrong("deaf", lambda n: True, "the answer does not depend on n", "Look at n."),
    )
    exercise = with_cases(toy, lambda n: n > 4, *RINGS, wrong=causes)
    assert judge(exercise, lambda n: False).diagnosed is None
    assert judge(exercise, lambda n: n > 50).diagnosed is causes[0]
    assert judge(exercise, lambda n: True).diagnosed is causes[1]
    assert reads_nothing(lambda n, *more: 3)
    assert not reads_nothing(lambda n, *more: len(more))
    assert not reads_nothing(lambda n: [n for _ in range(2)])
    assert not reads_nothing(max)
