"""A small exercise to test the engine with, and a progress file of its own for every test."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from fsl_classroom import Case, Exercise, Property, Wrong
from fsl_classroom.checking import progress


def _prototypes(embeddings: Tensor, labels: Tensor, n_way: int) -> Tensor:
    return torch.stack([embeddings[labels == k].mean(0) for k in range(n_way)])


def _one_hot(embeddings: Tensor, labels: Tensor, n_way: int) -> Tensor:
    mask = (labels[:, None] == torch.arange(n_way)).to(embeddings)
    return mask.T @ embeddings / mask.sum(0)[:, None]


def _index_add(embeddings: Tensor, labels: Tensor, n_way: int) -> Tensor:
    sums = embeddings.new_zeros(n_way, embeddings.shape[1]).index_add(0, labels, embeddings)
    return sums / labels.bincount(minlength=n_way)[:, None]


def _sums(embeddings: Tensor, labels: Tensor, n_way: int) -> Tensor:
    return torch.stack([embeddings[labels == k].sum(0) for k in range(n_way)])


def _transposed(embeddings: Tensor, labels: Tensor, n_way: int) -> Tensor:
    return _prototypes(embeddings, labels, n_way).T


def _detached(embeddings: Tensor, labels: Tensor, n_way: int) -> Tensor:
    return _prototypes(embeddings, labels, n_way).detach()


def _half_detached(embeddings: Tensor, labels: Tensor, n_way: int) -> Tensor:
    return _prototypes((embeddings + embeddings.detach()) / 2, labels, n_way)


def _writes(embeddings: Tensor, labels: Tensor, n_way: int) -> Tensor:
    result = _prototypes(embeddings, labels, n_way)
    embeddings -= embeddings.mean()
    return result


def _reshape(embeddings: Tensor, labels: Tensor, n_way: int) -> Tensor:
    return embeddings.reshape(n_way, -1, embeddings.shape[1]).mean(1)


def _endless(embeddings: Tensor, labels: Tensor, n_way: int) -> Tensor:
    while True:
        pass


def _cases(generator: torch.Generator) -> list[Case]:
    def case(says: str, labels: list[int], n_way: int, dtype: torch.dtype = torch.float32) -> Case:
        rows = torch.randn(len(labels), 4, generator=generator, dtype=dtype)
        return Case(says, (rows, torch.tensor(labels), n_way))

    return [
        case("3 classes, 2 shots", [0, 1, 2, 0, 1, 2], 3),
        case("2 classes, unequal shots", [0, 1, 1], 2),
        case("3 classes, in float64", [2, 2, 1, 0], 3, torch.float64),
    ]


def _permutes(answer, reference) -> str | None:
    rows, labels = torch.arange(12.0).reshape(6, 2), torch.tensor([0, 1, 0, 1, 0, 1])
    order = torch.tensor([5, 3, 1, 0, 2, 4])
    gap = (answer(rows, labels, 2) - answer(rows[order], labels[order], 2)).abs().max()
    return None if gap < 1e-5 else f"the prototypes moved by {gap:.3g}."


@pytest.fixture
def toy() -> Exercise:
    """Class means, with a property, a gradient and six wrong answers."""
    return Exercise(
        id="99.1",
        title="Prototypes",
        reference=_prototypes,
        cases=_cases,
        properties=(Property("the order of the rows does not matter", _permutes),),
        gradient=(0,),
        right=(_one_hot, _index_add),
        wrong=(
            Wrong("sums", _sums, "the rows are summed and never divided", "Divide by the count."),
            Wrong("transposed", _transposed, "rows and columns are swapped", "One row for each class."),
            Wrong("detached", _detached, "the result is detached", "Leave the graph whole."),
            Wrong("half detached", _half_detached, "half of the gradient is cut", "Leave the graph whole."),
            Wrong("writes", _writes, "the rows are centred in place", "Work on a copy."),
            Wrong("reshape", _reshape, "the rows are reshaped as if sorted", "Select by label."),
        ),
        hints=("Think of the centre.", "Select by label, then average.", "torch.stack of .mean(0)."),
    )


@pytest.fixture
def endless(toy) -> Exercise:
    """The same exercise with one more wrong answer that never ends. Each try of it costs half a second."""
    return replace(toy, wrong=(*toy.wrong, Wrong("endless", _endless, "the loop has no end", "Count to n_way.")))


@pytest.fixture(autouse=True)
def progress_file(tmp_path, monkeypatch):
    """Gives every test a progress file of its own, so that tests do not touch the user's."""
    path = tmp_path / "progress.json"
    monkeypatch.setenv("FSL_PROGRESS", str(path))
    monkeypatch.setattr(progress, "_memory", {})
    monkeypatch.setattr(progress, "_next_hint", {})
    return path
