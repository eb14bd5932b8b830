"""The explanations, tested on errors that torch really raises."""

import pytest
import torch
import torch.nn.functional as F

from fsl_classroom import check
from fsl_classroom.checking.explain import explain

X = torch.ones(3, 4)
WHOLE, MASK, FLOATS = torch.arange(3), torch.tensor([True, False]), torch.tensor([0.0, 1.0])
NUMBERS = "turn them into floating-point numbers first, .double() or .float()."
LONG = "Indices and labels must be whole numbers: .long() turns a tensor into int64."


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: MASK.mean(), NUMBERS),
        (lambda: WHOLE.mean(), NUMBERS),
        (lambda: WHOLE.std(), NUMBERS),
        (lambda: WHOLE.norm(), NUMBERS),
        (lambda: WHOLE.softmax(0), NUMBERS),
        (lambda: torch.cdist(WHOLE[None], WHOLE[None]), NUMBERS),
        (lambda: X @ torch.ones(4, 2, dtype=torch.float64), "Both sides must have the same dtype"),
        (lambda: X[5], "dimension 0 has 3 entries, so the last index is one less."),
        (lambda: X.gather(1, torch.tensor([[9]])), "dimension 1 has 4 entries"),
        (lambda: X[:0][0], "It is empty: was nothing selected?"),
        (lambda: X.index_select(0, torch.tensor([9])), "Indices start at 0"),
        (lambda: F.embedding(torch.tensor([9]), X), "Indices start at 0"),
        (lambda: [1][3], "Indices start at 0"),
        (lambda: F.cross_entropy(X, torch.tensor([0, 1, 9])), "Labels start at 0"),
        (lambda: F.one_hot(torch.tensor([4]), 3), "Labels start at 0"),
        (lambda: X[FLOATS], LONG),
        (lambda: X[0.5], LONG),
        (lambda: X.gather(1, FLOATS[:, None]), LONG),
        (lambda: X.index_select(0, FLOATS), LONG),
        (lambda: X.index_add(0, FLOATS, X[:2]), LONG),
        (lambda: X.scatter(1, FLOATS[:, None], 1.0), LONG),
        (lambda: F.embedding(FLOATS, X), LONG),
        (lambda: F.one_hot(FLOATS), LONG),
        (lambda: F.cross_entropy(X[:2], FLOATS), LONG),
        (lambda: FLOATS.bincount(), LONG),
        (lambda: X @ X, "as many columns on the left as rows on the right; they are 4 and 3."),
        (lambda: X @ torch.ones(3), "the dimensions that meet must be equally long"),
        (lambda: X[0] @ torch.ones(3), "the dimensions that meet must be equally long"),
        (lambda: torch.ones(2, 3, 4) @ torch.ones(2, 3, 4), "the dimensions that meet must be equally long"),
        (lambda: X - torch.ones(3), "In dimension 1 they are 4 and 3."),
        (lambda: X.expand(2, 3, 5), "size 4 does not become 5."),
    ],
)
def test_torch_errors_get_a_plain_sentence(call, words):
    with pytest.raises((RuntimeError, IndexError)) as caught:
        call()
    assert words in explain(str(caught.value))


def test_other_errors_get_none():
    with pytest.raises(RuntimeError) as caught:
        bool(X)
    assert explain(str(caught.value)) == ""
    assert explain("") == ""


def test_shapes_of_the_tensors_in_the_line_are_shown(toy, capsys):
    def answer(embeddings, labels, n_way):
        centres = torch.zeros(n_way, 4)
        return embeddings - centres + 0 * n_way

    assert check(toy, answer) is toy.reference
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert lines[2].startswith("RuntimeError: The size of tensor a (6) must match the size of tensor b (3)")
    assert lines[3].endswith("In dimension 0 they are 6 and 3. Shapes: embeddings [6, 4], centres [3, 4].")
    assert lines[4] == "Raised in line 3 of your function: return embeddings - centres + 0 * n_way"


def test_the_sentence_stands_between_the_message_and_the_line(toy, capsys):
    def answer(embeddings, labels, n_way):
        return (labels == 0).mean()

    check(toy, answer)
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert lines[2].startswith("RuntimeError: mean(): could not infer output dtype.")
    assert lines[3].endswith(NUMBERS)
    assert lines[4].startswith("Raised in line 2")
