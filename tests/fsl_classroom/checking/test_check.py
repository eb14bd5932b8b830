"""What `check` says and returns, for a small exercise."""

import gc
from dataclasses import replace

import pytest
import torch
from torch import nn

from fsl_classroom import Case, check, find, hint
from fsl_classroom.checking.outcome import cases_of
from fsl_classroom.checking.tree import clone


def one_call(exercise, reference, *args, **more):
    """Returns the exercise with another reference and a single case."""
    plain = {"properties": (), "gradient": (), "wrong": (), **more}
    return replace(exercise, reference=reference, cases=lambda generator: [Case("one call", args)], **plain)


def refused(exercise, answer, capsys, *parts):
    """Asserts that check refuses, returns the reference, says these parts in 3 to 8 lines and shows no traceback."""
    assert check(exercise, answer) is exercise.reference
    said = capsys.readouterr().out
    lines = said.splitlines()
    assert lines[0] == f"✗ {exercise.id} {exercise.title}: not right yet."
    assert 3 <= len(lines) <= 8
    assert "Traceback" not in said
    for part in parts:
        assert part in said
    return said


def test_right_answers_are_handed_back_in_one_line(toy, capsys):
    for answer in toy.right:
        assert check(toy, answer) is answer
        assert capsys.readouterr().out == "✓ 99.1 Prototypes: right (3 cases, 1 property, gradient)\n"


def test_every_classic_wrong_answer_is_told_its_own_diagnosis(endless, capsys):
    for entry in endless.wrong:
        said = refused(endless, entry.answer, capsys, f"Hint: {entry.hint}")
        assert f"This is what you get when {entry.diagnosis}." in said


def test_a_mistake_of_ones_own_gets_no_diagnosis_but_numbers(toy, capsys):
    def answer(embeddings, labels, n_way):
        result = toy.reference(embeddings, labels, n_way).clone()
        result[1, 2] += 0.5
        return result

    toy = replace(toy, properties=(), gradient=())
    said = refused(
        toy, answer, capsys, "Tried: 3 classes, 2 shots.", "1 of 12 values differ. Largest difference 0.5 at [1, 2]"
    )
    assert "This is what you get" not in said


def test_values_come_before_laws_and_before_gradients(toy, capsys):
    def first_rows(embeddings, labels, n_way):  # breaks the property and equality
        return embeddings[:n_way] * 1.0

    def cut_and_shifted(embeddings, labels, n_way):  # breaks equality and has half a gradient
        return toy.reference((embeddings + embeddings.detach()) / 2, labels, n_way) + 1

    def detached_and_shifted(embeddings, labels, n_way):  # breaks equality and has no gradient at all
        return toy.reference(embeddings, labels, n_way).detach() + 1

    for answer in (first_rows, cut_and_shifted, detached_and_shifted):
        said = refused(toy, answer, capsys, "values differ")
        assert "Property" not in said
        assert "gradient" not in said


def test_finite_differences_find_a_gradient_that_is_half_cut(toy, capsys):
    answer = next(entry.answer for entry in toy.wrong if entry.name == "half detached")
    refused(toy, answer, capsys, "finite differences give", "autograd through your function gives", "embeddings[")


def test_the_stub_counts_as_not_attempted(toy, capsys, progress_file):
    def raising(embeddings, labels, n_way):
        """Class means."""
        # YOUR CODE HERE
        raise NotImplementedError("exercise 99.1 is not attempted yet")

    def dots(embeddings, labels, n_way):
        # YOUR CODE HERE
        ...

    def nothing(embeddings, labels, n_way):
        # YOUR CODE HERE
        return None

    for stub in (raising, dots, nothing):
        assert check(toy, stub) is toy.reference
        said = capsys.readouterr().out
        assert said.startswith("○ 99.1 Prototypes: not attempted yet.")
        assert len(said.splitlines()) == 1
    assert not progress_file.exists()  # no attempt is counted


def test_a_forgotten_return_is_an_attempt(toy, capsys):
    def answer(embeddings, labels, n_way):
        # YOUR CODE HERE
        result = toy.reference(embeddings, labels, n_way)  # noqa: F841

    refused(toy, answer, capsys, "got None. Is a `return` missing?")


def test_the_reference_handed_in_again_is_not_counted(toy, capsys, progress_file):
    assert check(toy, toy.reference) is toy.reference
    assert "this is the reference" in capsys.readouterr().out
    assert not progress_file.exists()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (None, "Expected a function, got None."),
        (torch.ones(3, 2), "Expected a function, got a float32 tensor of shape [3, 2]. Pass the function itself"),
        (lambda a, b: a, "Expected a function of (embeddings, labels, n_way), got one of (a, b)"),
    ],
)
def test_what_cannot_be_called_is_told_in_words(toy, capsys, answer, words):
    refused(toy, answer, capsys, words)


def generate(embeddings, labels, n_way):
    yield embeddings


async def coroutine(embeddings, labels, n_way):
    return embeddings


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (
            lambda e, y, n: e.double().sum(0),
            "Expected a float32 tensor of shape [3, 4], got a float64 tensor of shape [4]",
        ),
        (lambda e, y, n: e.numpy(), "a float32 NumPy array of shape [6, 4]"),
        (
            lambda e, y, n: (e,),
            "A comma after the returned value makes a tuple of it; torch.autograd.grad returns one, too.",
        ),
        (lambda e, y, n: "text" * 1000, "got the str 'text"),
        (lambda e, y, n: [0] * 10**6, "a list of 1000000 items"),
        (lambda e, y, n: 10**5000, "a huge number"),
        (lambda e, y, n: torch.full((n, 4), torch.nan, dtype=e.dtype), "12 of 12 values are NaN"),
        (generate, "contains `yield`"),
        (lambda e, y, n: object(), "an object of type object"),
    ],
)
def test_odd_results_are_named(toy, capsys, answer, words):
    said = refused(toy, answer, capsys, words)
    assert len(said) < 800


@pytest.mark.filterwarnings("error:coroutine .* was never awaited:RuntimeWarning")
def test_a_coroutine_is_named(toy, capsys):
    refused(toy, coroutine, capsys, "`async def`")
    gc.collect()  # a warning about it would come here


def test_a_result_that_fights_back_is_survived(toy, capsys):
    class Hostile:
        def __eq__(self, other):
            raise ValueError("no")

        __hash__ = None

        def __repr__(self):
            raise ValueError("no")

    exercise = one_call(toy, lambda x: Hostile(), 1)
    assert check(exercise, lambda x: Hostile()) is exercise.reference
    assert "ends in a ValueError" in capsys.readouterr().out


def test_numbers_strings_and_containers_are_compared(toy, capsys):
    def reference(x):
        return {"mean": 0.5, "ids": [1, 2], "name": "a", "ok": True}

    exercise = one_call(toy, reference, 1)
    right = lambda x: {"ok": True, "ids": (1, 2), "mean": 0.5 + 1e-7, "name": "a"}  # noqa: E731
    assert check(exercise, right) is right
    capsys.readouterr()
    refused(
        exercise,
        lambda x: {**reference(x), "mean": 0.6},
        capsys,
        "At ['mean']: expected the float 0.5, got the float 0.6",
    )
    refused(exercise, lambda x: {**reference(x), "ids": [1, 3]}, capsys, "At ['ids'][1]", "got the int 3")
    refused(exercise, lambda x: {**reference(x), "ok": 1}, capsys, "expected the bool True, got the int 1")
    refused(exercise, lambda x: {"mean": 0.5}, capsys, "Missing: 'ids', 'name', 'ok'")


def test_float64_inputs_are_compared_more_sharply(toy):
    single, double = torch.ones(3), torch.ones(3, dtype=torch.float64)
    for x, accepted in ((single, True), (double, False)):
        exercise = one_call(toy, lambda x: x * 2, x)
        answer = lambda x: x * (2 + 1e-5)  # noqa: E731
        assert (check(exercise, answer) is answer) is accepted


def test_an_own_comparison_decides_about_values_but_not_about_types(toy, capsys):
    same = lambda got, expected: None if got.sum() == 3 else f"the sum is {got.sum():g}."  # noqa: E731
    exercise = one_call(toy, lambda x: torch.tensor([1.0, 2.0]), 1, same=same)
    right = lambda x: torch.tensor([3.0, 0.0])  # noqa: E731
    assert check(exercise, right) is right
    capsys.readouterr()
    refused(exercise, lambda x: torch.tensor([3.0, 1.0]), capsys, "the sum is 4.")
    refused(exercise, lambda x: torch.tensor([3.0]), capsys, "Expected a float32 tensor of shape [2]")


def test_an_exercise_may_ask_for_a_change_in_place(toy, capsys):
    def reference(model):
        with torch.no_grad():
            model.weight.add_(1)

    def twice(model):
        reference(model)
        reference(model)

    exercise = one_call(toy, reference, nn.Linear(2, 1))
    right = lambda model: reference(model)  # noqa: E731
    assert check(exercise, right) is right
    capsys.readouterr()
    refused(exercise, lambda model: model.bias.shape and None, capsys, "should change its argument model in place")
    refused(exercise, twice, capsys, "The argument model is changed in place, but not to what it should be.")


def test_every_call_has_its_own_arguments(toy):
    """A tensor that an answer overwrites is intact in the next call, and in the case itself."""
    seen = []

    def spoils(embeddings, labels, n_way):
        seen.append(embeddings.clone())
        result = toy.reference(embeddings, labels, n_way)
        embeddings.zero_()
        return result

    exercise = replace(toy, gradient=(), properties=())
    check(exercise, spoils)
    expected = [case.args[0] for case in cases_of(exercise)]
    assert all(torch.equal(a, b) for a, b in zip(seen, expected, strict=True))


def test_copies_keep_what_matters():
    shared = torch.ones(2, requires_grad=True)
    generator = torch.Generator().manual_seed(3)
    first, second, again = clone((shared, {"same": shared}, generator))
    assert first is second["same"]
    assert first.requires_grad
    assert first is not shared
    assert torch.equal(torch.rand(3, generator=again), torch.rand(3, generator=torch.Generator().manual_seed(3)))


def test_a_broken_exercise_is_told_and_blames_nobody(toy, capsys):
    def reference(x):
        raise KeyError("oops")

    exercise = one_call(toy, reference, 1)
    assert check(exercise, lambda x: x) is reference
    said = capsys.readouterr().out
    assert "the exercise itself is broken (KeyError('oops'))" in said
    assert "Restart the kernel and try again" in said


def test_unknown_ids_are_clear_errors():
    for ask in (lambda key: check(key, len), hint):
        with pytest.raises(ValueError, match=r'looks like "05.1".* got the float 0.1. Did you mean "00.1"\?'):
            ask(0.1)
        with pytest.raises(ValueError, match=r"got the str '5.1'. Did you mean \"05.1\"\?"):
            ask("5.1")
        for odd, words in (
            (None, "got None.$"),
            (len, "got a function.$"),
            (torch.ones(2), r"tensor of shape \[2\].$"),
        ):
            with pytest.raises(ValueError, match=words):
                ask(odd)
    with pytest.raises(LookupError, match="lesson '98' has no exercises"):
        find("98.1")
