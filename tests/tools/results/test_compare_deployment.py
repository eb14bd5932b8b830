"""The comparison behind lesson 25: losses, counts and forms on toys, that a stopped run goes on, and that the file is whole."""

import json
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fsl_course.episodes import EpisodeSampler
from fsl_course.evaluation import evaluate
from fsl_course.methods.prototypical import PrototypicalNetwork
from fsl_course.nets import conv4
from tests.conftest import toy_images
from tools.results import compare_deployment as compare
from tools.results import deployment_forms as forms


@pytest.fixture
def small(monkeypatch):
    """Toys instead of Glyphs, three ways, a tiny net."""
    for name, value in {"WIDTH": 4, "WAY": 3, "SHORT": 2, "CELLS": ((3, 1),)}.items():
        monkeypatch.setattr(compare, name, value)
    toys = toy_images(12, 20)
    monkeypatch.setattr(compare, "load_glyphs", lambda: SimpleNamespace(split=lambda name: toys))
    return toys


def test_the_loss_of_distillation_is_the_divergence_of_softened_answers(monkeypatch):
    monkeypatch.setattr(compare, "WAY", 2)
    generator = torch.Generator().manual_seed(0)
    mine, theirs = (torch.randn(6, d, generator=generator) for d in (3, 5))
    step = compare.Step(mine, theirs, torch.tensor([0, 1]), torch.tensor([0, 1, 1, 0]))
    p, q = ((step.logits(rows) / compare.TEMPERATURE).softmax(1) for rows in (theirs, mine))
    by_hand = compare.TEMPERATURE**2 * (p * (p / q).log()).sum(1).mean()
    assert torch.allclose(compare.LOSSES["logits"](step, nn.Identity()), by_hand, atol=1e-5)
    assert torch.allclose(compare.LOSSES["alone"](step, nn.Identity()), F.cross_entropy(step.logits(mine), step.truth))
    far = compare.Step(mine, mine + 1, step.labels, step.truth)
    assert compare.LOSSES["logits"](far, nn.Identity()).abs() < 1e-5  # the same distances


def test_right_answers_are_those_of_evaluate(small):
    net = PrototypicalNetwork(conv4(4)).eval()
    table = torch.cat([net.embed(part) for part in (small.images.flatten(0, 1).float() / 255).split(50)]).detach()
    counts = compare.answers(table, small, 3, 1, 8)
    wanted = evaluate(net, EpisodeSampler(small, 3, 1, compare.TEST_QUERY, seed=0), 8).per_episode
    assert torch.allclose(torch.tensor(counts) / (3 * compare.TEST_QUERY), wanted.float())


def test_multiply_adds_and_int8_filters_by_hand():
    net = conv4(2).eval()
    assert forms.multiply_adds(net) == 9 * (28**2 * 2 + (14**2 + 7**2 + 3**2) * 4)
    weight = torch.tensor([[127.0, 0.5, 1.5, -2.5], [0.0, 0.0, 0.0, 0.0]])
    codes, scale = forms.quantised(weight)
    assert codes.tolist() == [[127, 0, 2, -2], [0, 0, 0, 0]]
    assert scale.tolist() == [1, 1]
    copy, size = forms.with_int8_filters(net)
    assert size == 9 * 2 + 3 * 9 * 4 + 4 * 2 * 8
    gap = copy.layers[0].weight - net.layers[0].weight
    assert 0 < float(gap.detach().abs().max()) < float(net.layers[0].weight.detach().abs().max()) / 250


def test_ratios_are_those_of_the_first_form():
    found = forms.ratios({"a": lambda x: x, "b": lambda x: x + 1}, torch.zeros(2), rounds=3)
    assert found["a"] == [1, 1, 1]
    assert found["b"] == sorted(found["b"])


def test_a_stopped_run_goes_on_and_other_settings_are_refused(small, tmp_path, monkeypatch):
    asked = []

    def measured(nets, calibration, test, rounds):
        asked.append({name: net.width for name, net in nets.items()})
        for name in nets:
            for kind in forms.KINDS:
                yield {"label": f"{name}, {kind}", "seed": 0, "net": name}, torch.zeros(len(test) * 20, 4)

    monkeypatch.setattr(forms, "measured", measured)
    out = tmp_path / "rows.json"
    words = ["--steps", "3", "--episodes", "4", "--kept", str(tmp_path), "--out", str(out)]
    compare.main([*words, "--seeds", "1"])
    first = json.loads(out.read_text())["rows"]
    assert [row["label"] for row in first[:4]] == ["teacher", *list(compare.LOSSES)[:3]]
    assert asked == [{"Conv4-64": 64, "Conv4-4": 4}]
    compare.main([*words, "--seeds", "2"])
    rows = json.loads(out.read_text())["rows"]
    assert rows[: len(first)] == first
    assert len(rows) == len(first) + 2 * len(compare.LOSSES)
    assert len(asked) == 1
    with pytest.raises(SystemExit, match="other settings"):
        compare.main([*words[2:], "--steps", "4"])


def test_the_committed_table_is_whole():
    table = json.loads(compare.OUT.read_text(encoding="utf-8"))
    rows = {(row["label"], row["seed"]): row for row in table["rows"]}
    assert len(rows) == len(table["rows"])
    students = {(label, seed) for label, _, seed, _ in compare.plan_of(table["train"]["steps"], 3)}
    shipped = {(f"{net}, {kind}", 0) for net in ("Conv4-64", "Conv4-16") for kind in forms.KINDS}
    assert set(rows) == students | shipped | {("teacher", 0)}
    for row in rows.values():
        for part in row["results"]:
            assert len(part["correct"]) == 600
            assert 0 <= min(part["correct"]) <= max(part["correct"]) <= part["way"] * compare.TEST_QUERY
    for net, first in (("Conv4-64", "teacher"), ("Conv4-16", rows["Conv4-16, int8 filters", 0]["student"])):
        torch_row, onnx_row = (rows[f"{net}, {kind}", 0] for kind in (forms.TORCH, forms.ONNX))
        assert torch_row["results"] == rows[first, 0]["results"]
        assert onnx_row["parity"]["relative"] < 1e-5
        assert rows[f"{net}, {forms.INT8}", 0]["bytes"] < onnx_row["bytes"]


def test_an_exported_net_agrees_and_its_int8_file_is_smaller(tmp_path):
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name, reason='needs pip install "fsl-course[deploy]"')
    torch.manual_seed(0)
    net, pictures = conv4(32).eval(), toy_images(8, 5).images.flatten(0, 1).float() / 255
    forms.export(net, tmp_path / "net")
    run = forms.runner(tmp_path / "net")
    for count in (1, 2, 33):
        assert forms.parity(run, net, pictures[:count])["largest"] < 1e-4
    forms.to_int8(tmp_path / "net", tmp_path / "int8", pictures)
    assert (tmp_path / "int8").stat().st_size < 0.6 * (tmp_path / "net").stat().st_size
    apart = forms.parity(forms.runner(tmp_path / "int8"), net, pictures)["relative"]
    assert 1e-5 < apart < 0.2
