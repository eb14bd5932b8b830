"""The sine curves behind lessons 07 and 08: a tiny run of the tool that makes their weights, stopped and resumed."""

import json
import os
import signal
import sys
from pathlib import Path

import pytest
import torch

from fsl_course import SinusoidSampler, evaluate, fit
from fsl_course.weights.checkpoints import load_file, load_learner
from fsl_course.weights.learners import make
from tools.results import train_sine


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(train_sine, "STEPS", (0, 1))
    monkeypatch.setattr(train_sine, "QUERY", 6)

    def run(out: Path, steps: int = 3) -> dict | None:
        monkeypatch.setattr(sys, "argv", ["train_sine", "--steps", str(steps), "--episodes", "3", "--out", str(out)])
        train_sine.main()
        card = out / "maml-sinusoids.json"
        return json.loads(card.read_text()) if card.is_file() else None

    return run


def test_weights_and_card_of_a_run(quick, tmp_path, capsys):
    card = quick(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["maml-sinusoids.json", "maml-sinusoids.safetensors"]
    assert card["command"] == "python -m tools.results.train_sine --steps 3 --episodes 3"
    assert (card["method"], card["data"], card["seed"]) == ("maml", "sinusoids", 0)
    assert card["settings"] == {"net": "mlp", "inner_lr": 0.01, "inner_steps": 1}
    assert card["torch"] == torch.__version__
    rows = [(row["learner"], row["shot"], row["steps"]) for row in card["test"]]
    assert rows == [(n, k, s) for n in ("maml", "pretraining") for k in (5, 10) for s in (0, 1)]
    assert capsys.readouterr().out.count(" steps: ") == 8

    learner, about = load_learner(tmp_path / "maml-sinusoids.safetensors")
    assert about == {key: card[key] for key in ("method", "settings", "data")}
    torch.manual_seed(0)
    again = make("maml", net="mlp", inner_lr=0.01, inner_steps=1)
    fit(again, SinusoidSampler(10, 10, seed=0), steps=3, tasks=25, progress=False)
    assert all(torch.equal(t, again.state_dict()[name]) for name, t in learner.state_dict().items())
    for row in card["test"][:4]:  # of the weights in the file, on curves of another seed than those of training
        learner.test_steps = row["steps"]
        found = evaluate(learner, SinusoidSampler(row["shot"], 6, seed=1), 3, metric="mse")
        assert row["mse"] == pytest.approx(found.mean, rel=1e-5)
        assert row["ci95"] == pytest.approx(found.ci95, rel=1e-5)


def test_pretraining_is_one_net_for_all_curves_at_once(quick, tmp_path):
    """No inner loop: after 0 steps of adaptation it has the error of plain regression on pooled curves."""
    torch.manual_seed(0)
    net, losses = make("maml", net="mlp").model, torch.nn.MSELoss()
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-3)
    for step in range(3):
        batch = SinusoidSampler(10, 10, seed=0).batch(25 * step, 25)
        optimiser.zero_grad()
        losses(net(batch.query_x), batch.query_y).backward()
        optimiser.step()
    row = next(r for r in quick(tmp_path)["test"] if r["learner"] == "pretraining")
    test = SinusoidSampler(5, 6, seed=1).batch(0, 3)
    with torch.no_grad():
        assert row["mse"] == pytest.approx(losses(net(test.query_x), test.query_y).item(), rel=1e-4)


def test_a_stopped_run_goes_on_and_ends_with_the_same(quick, tmp_path, monkeypatch):
    whole = quick(tmp_path / "a")
    real, pressed = train_sine.fit, []

    def stops_at_first(*args, **kwargs):
        sampler = args[1]
        if not pressed:
            batch = sampler.batch
            sampler.batch = lambda *a: (pressed or os.kill(os.getpid(), signal.SIGINT), pressed.append(1), batch(*a))[2]
        return real(*args, **kwargs)

    monkeypatch.setattr(train_sine, "fit", stops_at_first)
    assert quick(tmp_path / "b") is None
    assert [p.name for p in (tmp_path / "b").iterdir()] == ["maml-sinusoids.state.safetensors"]
    resumed = quick(tmp_path / "b")
    assert resumed["test"] == whole["test"]
    one, other = (load_file(tmp_path / folder / "maml-sinusoids.safetensors")[0] for folder in "ab")
    assert all(torch.equal(t, other[name]) for name, t in one.items())
    assert quick(tmp_path / "a")["test"] == whole["test"]  # once more, over what is there
