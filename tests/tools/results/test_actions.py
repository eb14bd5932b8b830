"""Training, shipping and the status of runs, and the command line that calls them."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from fsl_course.cli import train as train_command
from tests.tools.results.tiny import TINY, put_weights
from tools.results import actions
from tools.results.__main__ import main
from tools.results.actions import ship, train
from tools.results.runs import RUNS
from tools.results.trained import RunError, card_of, weights_of


def test_train_writes_into_the_runs_folder_and_is_done_once(places, capsys, monkeypatch):
    monkeypatch.setattr(train_command, "CARD_EPISODES", 2)
    assert train(TINY) == 0
    weights = weights_of(TINY, 0)
    assert weights == places / "runs" / "tiny" / "prototypical-glyphs.safetensors"
    assert card_of(weights, TINY)["seed"] == 0
    before = weights.stat().st_mtime_ns
    assert train(TINY) == 0
    assert "is there" in capsys.readouterr().out
    assert weights.stat().st_mtime_ns == before
    assert card_of(weights, replace(TINY, arguments="--lr 1e-3 --width 8"))  # the card writes 0.001
    with pytest.raises(RunError, match=r"was not trained as tiny says \(--steps 4\)"):
        card_of(weights, replace(TINY, arguments="--steps 4"))

    ship(TINY)
    shipped = places / "checkpoints" / "prototypical-tiny.safetensors"
    assert shipped.read_bytes() == weights.read_bytes()
    assert json.loads(shipped.with_suffix(".json").read_text())["method"] == "prototypical"
    assert "tools.data.checksums" in capsys.readouterr().out
    weights.unlink()
    assert weights_of(TINY, 0) == shipped  # the shipped ones stand in


def test_large_weights_and_unnamed_ones_do_not_ship(places, monkeypatch):
    put_weights(places, f"train --data glyphs {TINY.arguments}", size=actions.LARGEST + 1)
    with pytest.raises(RunError, match="at most 1 MB ship"):
        ship(TINY)
    with pytest.raises(RunError, match="does not ship"):
        ship(replace(TINY, ships=None))
    assert not list((places / "checkpoints").iterdir())
    (shipped := places / "checkpoints" / "prototypical-tiny.safetensors").write_bytes(b"good")
    with pytest.raises(RunError, match="at most 1 MB ship"):
        ship(TINY)
    assert shipped.read_bytes() == b"good"


def test_the_command_line_names_the_nearest_run(capsys):
    assert main(["evaluate", "proto-random-2"]) == 1
    assert 'Did you mean "proto-random-' in capsys.readouterr().err
    assert main(["train"]) == 1
    assert "takes names of runs" in capsys.readouterr().err


def test_status_tells_every_run(capsys):
    assert main(["status"]) == 0
    out = capsys.readouterr().out
    assert all(run.name in out for run in RUNS)
