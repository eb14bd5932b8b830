"""The drawers and the comparison behind lesson 16: training is repeatable, and the committed table is whole."""

import json

import pytest
import torch

from fsl_course import load_glyphs
from fsl_course.data.assets import asset
from fsl_course.methods.hallucination import Drawer, DrawingVAE
from fsl_course.weights.checkpoints import load_file
from tools.results import compare_hallucination as compare
from tools.results import train_hallucination as drawers


def test_pairs_are_different_drawings_of_one_letter():
    images = torch.arange(6 * 5, dtype=torch.uint8).view(6, 5, 1, 1, 1).expand(6, 5, 1, 28, 28)
    x, reference = drawers.pairs(images, 200, torch.Generator().manual_seed(0))
    first, second = ((t[:, 0, 0, 0] * 255).round().long() for t in (x, reference))
    assert torch.equal(first // 5, second // 5)
    assert not bool((first == second).any())


@pytest.mark.parametrize(("train", "made"), [(drawers.train_vae, DrawingVAE), (drawers.train_gan, Drawer)])
def test_training_gives_the_same_weights_twice(train, made, monkeypatch):
    monkeypatch.setattr(drawers, "BATCH", 4)
    images = load_glyphs().split("train").images[:8]
    first, second = (train(images, seed=3, steps=3) for _ in range(2))
    assert isinstance(first, made)
    assert not first.training
    for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(("name", "net"), [("vae", DrawingVAE), ("gan", Drawer)])
def test_shipped_weights_fit_their_class(name, net):
    tensors, about = load_file(asset(f"checkpoints/{drawers.file_name(name, 0)}"))
    assert about["class"] == net.__name__
    made = net()
    made.load_state_dict(tensors)
    assert about["parameters"] == sum(p.numel() for p in made.parameters())


def test_readers_agree_on_two_far_classes():
    support = torch.tensor([[0.0, 0.0], [0.0, 1.0], [9.0, 9.0], [9.0, 8.0]])
    labels, query = torch.tensor([0, 0, 1, 1]), torch.tensor([[1.0, 0.0], [8.0, 9.0]])
    for reader in ("nearest mean", "logistic"):
        assert compare.judge(support, labels, query, 2, reader).tolist() == [0, 1]


def test_the_committed_table_is_whole():
    table = json.loads(asset("hallucination_comparison.json").read_text(encoding="utf-8"))
    rows = {(row["label"], row["seed"]): row for row in table["rows"]}
    assert len(rows) == len(table["rows"])
    pairs = [(encoder, label) for encoder, labels in compare.LABELS.items() for label in labels]
    for encoder, label in pairs:
        for seed in range(3 if label in compare.SEEDED else 1):
            name = label if encoder == "prototypical" else f"{encoder}: {label}"
            results = rows[name, seed]["results"]
            assert len(results) == 5
            for found in results:
                episodes = table["episodes"] // (1 if found["way"] == 5 else 4)
                assert len(found["correct"]) == episodes
                assert max(found["correct"]) <= found["way"] * found["query"]
