"""What `verify` demands of an exercise."""

from dataclasses import replace

import torch

from fsl_classroom import Case, Property, Wrong, verify


def test_verify_accepts_the_toy_exercise(toy):
    assert verify(toy) == []


def problem(exercise):
    problems = verify(exercise)
    assert problems
    return " ".join(problems)


def test_verify_finds_what_is_missing(toy):
    toy = replace(toy, wrong=toy.wrong[:5])
    assert "three hints" in problem(replace(toy, hints=("one", "two")))
    assert "at least five wrong" in problem(replace(toy, wrong=toy.wrong[:4]))
    assert "two right answers" in problem(replace(toy, right=toy.right[:1]))
    assert 'like "05.1"' in problem(replace(toy, id="5-1"))
    assert "diagnosis of its own" in problem(replace(toy, wrong=(toy.wrong[0], *toy.wrong)))


def test_verify_finds_judgements_that_do_not_hold(toy):
    toy = replace(toy, wrong=toy.wrong[:5])
    sums, transposed = toy.wrong[0].answer, toy.wrong[1].answer
    assert "right answer 1 is not accepted" in problem(replace(toy, right=(sums, *toy.right)))
    harmless = Wrong("harmless", toy.right[0], "it is right", "None.")
    assert "'harmless' is not refused" in problem(replace(toy, wrong=(harmless, *toy.wrong[:4])))
    twin = Wrong("twin", lambda *args: transposed(*args), "it is turned", "Turn it back.")
    assert "'transposed' and 'twin' have the same outcome" in problem(replace(toy, wrong=(*toy.wrong, twin)))
    bad = replace(toy, properties=(Property("never", lambda answer, reference: "it does not hold"),))
    assert "the reference fails on property 0" in problem(bad)
    loose = replace(toy, cases=lambda generator: [Case("chance", (torch.rand(2, 4), torch.tensor([0, 1]), 2))])
    assert "the cases differ" in problem(loose)
