"""Answers that fill the memory or spoil the session are told what they do."""

import torch

from fsl_classroom import check
from tests.fsl_classroom.checking.test_check import refused


def test_a_list_of_millions_is_asked_for_once(toy, capsys):
    calls = []

    def answer(embeddings, labels, n_way):
        calls.append(n_way)
        return list(range(2 * 10**6))

    refused(toy, answer, capsys, "got a list of 2000000 items")
    assert calls == [3]


def test_a_mode_that_is_left_on_is_named_before_what_it_breaks(toy, capsys):
    def answer(embeddings, labels, n_way):
        result = toy.reference(embeddings, labels, n_way)
        torch.autocast("cpu").__enter__()
        return result

    refused(toy, answer, capsys, "Tried: 3 classes, 2 shots.", "leaves PyTorch's autocast changed")


def test_who_has_broken_pytorch_in_an_earlier_cell_is_told_to_restart(toy, capsys, monkeypatch):
    monkeypatch.setattr(torch, "stack", lambda tensors: 1 / 0)
    answer = toy.right[0]
    assert check(toy, answer) is toy.reference
    assert "Restart the kernel and try again" in capsys.readouterr().out
