"""Training, shipping and the status of runs, and the command line that calls them."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from fsl_course.cli import train as train_command
from fsl_course.episodes import EpisodeSampler
from fsl_course.evaluation import evaluate
from fsl_course.weights.checkpoints import save_learner
from fsl_course.weights.learners import make
from tests.conftest import toy_images
from tests.tools.results.tiny import TINY, put_weights
from tools.results import actions
from tools.results.__main__ import main
from tools.results.actions import ship, train, without_base_head
from tools.results.runs import RUNS, Run
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
    weights = put_weights(places, f"train --data glyphs {TINY.arguments}")
    settings = {"width": 120}
    save_learner(weights, make("prototypical", **settings), {"method": "prototypical", "settings": settings})
    assert weights.stat().st_size > actions.LARGEST
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


def test_transfer_ships_the_bytes_of_a_learner_that_never_had_base_classes(places):
    run = Run(
        "tiny", "transfer", "Transfer", "", "scripts", "--way 5 --shot 1", [(5, 1)], "transfer-tiny", data="glyphs"
    )
    torch.manual_seed(0)
    settings = {"width": 8, "head": "cosine", "n_base": 30}
    learner, about = make("transfer", **settings), {"method": "transfer", "settings": settings, "data": "glyphs"}
    learner.head.log_scale.data += 1  # as after training
    weights = places / "runs" / "tiny" / "transfer-glyphs.safetensors"
    save_learner(weights, learner, about)
    card = {"method": "transfer", "command": "train --data glyphs --way 5 --shot 1", "settings": settings}
    weights.with_suffix(".json").write_text(json.dumps(card))
    ship(run)

    never = make("transfer", **settings | {"n_base": 0})
    never.encoder.load_state_dict(learner.encoder.state_dict())
    expected = places / "expected.safetensors"
    save_learner(expected, never, about | {"settings": settings | {"n_base": 0}})
    shipped = places / "checkpoints" / "transfer-tiny.safetensors"
    assert shipped.read_bytes() == expected.read_bytes()
    note = "shipped without the head over the base classes, which new tasks do not use"
    written = json.loads(shipped.with_suffix(".json").read_text())
    assert written == card | {"settings": settings | {"n_base": 0}, "note": note}
    assert list(written) == [*card, "note"]


@pytest.mark.parametrize(("method", "more"), [("transfer", {}), ("transfer", {"head": "cosine"}), ("simple_shot", {})])
def test_without_the_head_over_the_base_classes_new_tasks_are_solved_alike(method, more):
    torch.manual_seed(0)
    settings = {"width": 4, "n_base": 12} | more
    learner = make(method, **settings).eval()
    if method == "simple_shot":
        learner.mean = torch.rand(4)
    shipped = (bare := without_base_head(learner)).state_dict()
    made = make(method, **settings | {"n_base": 0}).state_dict()
    assert {name: t.shape for name, t in shipped.items()} == {name: t.shape for name, t in made.items()}
    kept = {name: t for name, t in learner.state_dict().items() if not name.startswith("head.")}
    assert all(torch.equal(shipped[name], t) for name, t in (made | kept).items())
    sampler = EpisodeSampler(toy_images(), 4, 1, 3)
    assert torch.equal(evaluate(bare, sampler, 5).per_episode, evaluate(learner, sampler, 5).per_episode)


def test_status_tells_every_run(capsys):
    assert main(["status"]) == 0
    out = capsys.readouterr().out
    assert all(run.name in out for run in RUNS)
