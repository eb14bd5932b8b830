"""Cells are measured as `evaluate` measures them, and written as rows."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import pytest
import torch

from fsl_course.__main__ import main
from fsl_course.data import load_glyphs
from fsl_course.episodes import EpisodeSampler
from fsl_course.evaluation import evaluate
from fsl_course.methods.maml import MAML
from fsl_course.nets import classifier, conv4
from fsl_course.weights.checkpoints import save_learner
from fsl_course.weights.learners import make
from tests.conftest import toy_images
from tools.results import measure as measuring
from tools.results import trained
from tools.results.files import _fault
from tools.results.measure import (
    CellTest,
    Remembered,
    Shipped,
    evaluate_run,
    measure,
    measure_transfer,
    settings_of_cells,
)  # fmt: skip
from tools.results.runs import RUNS, Label, Run
from tools.results.trained import CHECKPOINTS, RunError, folder_of


@pytest.fixture(autouse=True)
def _scratch(tmp_path, monkeypatch):
    monkeypatch.setattr(trained, "RUNS_FOLDER", tmp_path / "runs")


def learner(seed: int = 0):
    torch.manual_seed(seed)
    return make("prototypical", width=8).eval()


def test_remembered_embeddings_change_no_result():
    toys, plain = toy_images(), learner()
    sampler = EpisodeSampler(toys, 5, 1, 5)
    quick = evaluate(Remembered(plain, toys), sampler, 20)
    assert torch.equal(quick.per_episode, evaluate(plain, sampler, 20).per_episode)
    assert 0.2 < quick.mean <= 1


def test_a_cell_of_one_learner_is_what_evaluate_says():
    toys, plain = toy_images(noise=250), learner()
    row = measure([plain], toys, CellTest(5, 1, 4), episodes=30)
    result = evaluate(plain, EpisodeSampler(toys, 5, 1, 4), 30)
    assert (row["mean"], row["ci95"]) == (pytest.approx(result.mean), pytest.approx(result.ci95))
    assert row["correct"] == {
        str(int(c)): n for c, n in sorted(Counter((20 * result.per_episode).round().tolist()).items())
    }
    assert row["sha256"] == measure([plain], toys, CellTest(5, 1, 4), episodes=30)["sha256"]
    assert row["sha256"] != measure([learner(1)], toys, CellTest(5, 1, 4), episodes=30)["sha256"]


def test_seeds_are_averaged_episode_by_episode():
    toys, both = toy_images(noise=250), [learner(0), learner(1)]
    row = measure(both, toys, CellTest(5, 1, 4), episodes=30)
    each = [evaluate(one, EpisodeSampler(toys, 5, 1, 4), 30) for one in both]
    assert row["seed_means"] == [pytest.approx(one.mean) for one in each]
    assert row["mean"] == pytest.approx(sum(one.mean for one in each) / 2)
    assert row["ci95"] < max(one.ci95 for one in each)


def test_transductive_cells_let_batch_norm_see_the_queries():
    toys = toy_images(noise=250)
    torch.manual_seed(0)
    maml = MAML(classifier(conv4(4), 5, 4), lr=1.0, steps=5)
    found = [measure([maml], toys, CellTest(5, 1, 5, seen), episodes=6) for seen in (False, True)]
    assert [row["inductive"] for row in found] == [True, False]
    assert 0.25 < found[0]["mean"] < 1
    assert found[0]["sha256"] != found[1]["sha256"]


def test_cells_of_the_papers_protocol():
    maml = Run("m", "maml", "MAML", "", "random", "", [(5, 5)])
    assert settings_of_cells(maml, "MAML") == [CellTest(5, 5, 15, False, "classes"), CellTest(5, 5, 5, True, "classes")]
    relation = next(run for run in RUNS if run.method == "relation")
    assert settings_of_cells(relation, "Relation")[:2] == [
        CellTest(5, 1, 15, False, "classes"),
        CellTest(5, 1, 1, True, "tasks"),
    ]
    reptile = next(run for run in RUNS if run.method == "reptile")
    assert settings_of_cells(reptile, "Reptile")[:3] == [
        CellTest(5, 1, 15, False, "classes"), CellTest(5, 1, 15, False, "none"), CellTest(5, 1, 1, True, "none"),
    ]  # fmt: skip
    proto = next(run for run in RUNS if run.method == "prototypical")
    assert all(not cell.transductive for cell in settings_of_cells(proto, "Prototypical"))
    alphabets = next(run for run in RUNS if run.name == "maml-alphabets-5w1s")
    assert settings_of_cells(alphabets, "MAML") == [CellTest(5, 1, 15, False, "none")]


def test_unlabelled_drawings_take_the_place_of_queries():
    run = Run("s", "soft_kmeans", "Soft", "", "random", "", [(5, 1), (5, 5)], unlabelled=5)
    assert [(cell.query, cell.unlabelled) for cell in settings_of_cells(run, "Soft")] == [(14, 5), (10, 5)]
    toys = toy_images(noise=250)
    torch.manual_seed(0)
    soft = make("soft_kmeans", width=8).eval()
    found = [
        measure([one], toys, CellTest(5, 1, 3, unlabelled=2), episodes=30) for one in (soft, Remembered(soft, toys))
    ]
    assert found[0]["sha256"] == found[1]["sha256"]
    sampler = EpisodeSampler(toys, 5, 1, 3, n_unlabelled=2)
    assert found[0]["mean"] == pytest.approx(evaluate(soft, sampler, 30).mean)
    assert found[0]["sha256"] != measure([soft], toys, CellTest(5, 1, 3), episodes=30)["sha256"]


def test_a_learner_that_is_transductive_itself_is_called_so():
    toys = toy_images(noise=250)
    torch.manual_seed(0)
    flow = make("label_propagation", width=8).eval()
    for one in (flow, Remembered(flow, toys)):
        assert measure([one], toys, CellTest(5, 1, 4), episodes=6)["inductive"] is False


def test_a_task_may_be_turned_as_a_whole(monkeypatch):
    toys = toy_images(classes=32)  # a quarter of them test
    monkeypatch.setattr(measuring, "load_omniglot", lambda protocol: toys)
    measuring.test_split.cache_clear()
    kinds = {turns: measuring.test_split("omniglot", "random", turns) for turns in ("classes", "none", "tasks")}
    measuring.test_split.cache_clear()
    assert [len(split) for split in kinds.values()] == [32, 8, 32]
    sampler = EpisodeSampler(kinds["tasks"], 5, 1, 2, within_group=True)
    turns = [{int(label) % 4 for label in sampler[i].classes} for i in range(40)]
    assert all(len(turn) == 1 for turn in turns)
    assert set.union(*turns) == {0, 1, 2, 3}
    assert any(
        len({int(label) % 4 for label in EpisodeSampler(kinds["classes"], 5, 1, 2)[i].classes}) > 1 for i in range(5)
    )


def put_finished(run: Run) -> None:
    """What training would leave in runs/, from fresh weights."""
    for seed in run.seeds:
        torch.manual_seed(seed)
        weights = folder_of(run, seed) / f"{run.method}-glyphs.safetensors"
        settings = {"width": 4}
        save_learner(
            weights, make(run.method, **settings), {"method": run.method, "settings": settings, "data": "glyphs"}
        )
        command = f"python -m fsl_course train {run.method} --data glyphs {run.arguments} --tasks 1 --out DIR"
        weights.with_suffix(".json").write_text(json.dumps({"method": run.method, "command": command, "minutes": 1.5}))


def test_a_trained_run_becomes_a_file_of_whole_rows(tmp_path):
    arguments = "--way 5 --shot 1 --query 3 --steps 2"
    cells = [(5, 1), (20, 5)]
    run = Run("tiny", "prototypical", "Prototypical", "", "scripts", arguments, cells, seeds=(0, 1), data="glyphs")
    with pytest.raises(RunError, match="tiny is not trained"):
        evaluate_run(run, episodes=3, results=tmp_path)
    put_finished(run)
    path = evaluate_run(run, episodes=3, results=tmp_path)
    first, second = json.loads(path.read_text())["rows"]
    assert path.name == "tiny.json"
    assert _fault(first) is None
    assert _fault(second) is None
    assert (first["seeds"], first["seed_numbers"], len(first["seed_means"])) == (2, [0, 1], 2)
    assert first["trained"] == {"way": 5, "shot": 1, "query": 3, "steps": 2, "tasks": 1}
    assert (second["way"], second["shot"], second["query"], second["episodes"]) == (20, 5, 15, 3)
    train, test = first["command"].split(" && ")
    assert train.endswith("--out runs/tiny")
    assert test == (
        "python -m fsl_course evaluate runs/tiny --data glyphs --way 5 --shot 1 --query 15 --episodes 3 --seed 0"
    )


def test_the_command_of_a_row_repeats_it(tmp_path, capsys, monkeypatch):
    arguments = "--way 5 --shot 1 --query 3 --steps 2"
    run = Run("tiny", "prototypical", "Prototypical", "", "scripts", arguments, [(5, 1)], data="glyphs")
    put_finished(run)
    (row,) = json.loads(evaluate_run(run, episodes=3, results=tmp_path).read_text())["rows"]
    capsys.readouterr()
    monkeypatch.chdir(tmp_path)
    words = row["command"].split(" && ")[1].split()
    assert main([*words[3:], "--json"]) == 0
    repeated = json.loads(capsys.readouterr().out)
    assert (repeated["mean"], repeated["ci95"]) == (pytest.approx(row["mean"]), pytest.approx(row["ci95"]))


def test_a_head_fills_cells_of_its_own_way_only(tmp_path):
    arguments = "--way 5 --shot 1 --query 2 --steps 1"
    run = Run("head", "maml", "MAML", "", "scripts", arguments, [(5, 1), (20, 1)], data="glyphs")
    put_finished(run)
    with pytest.raises(RunError, match="head of 5 outputs"):
        evaluate_run(run, episodes=2, results=tmp_path)
    path = evaluate_run(replace(run, cells=[(5, 1), (5, 2)], label="Reptile"), episodes=2, results=tmp_path)
    found = json.loads(path.read_text())["rows"]  # trained with one shot, tested with others, as Reptile is
    assert [(row["shot"], row["trained"]["shot"]) for row in found if row["inductive"]] == [(1, 1), (2, 1)]


def test_transfer_keeps_rows_of_the_same_weights(tmp_path, monkeypatch):
    learner_file = CHECKPOINTS / "prototypical-glyphs.safetensors"
    about = json.loads(learner_file.with_suffix(".json").read_text())
    shipped = Shipped(learner_file, Label("prototypical", "Prototypical"), about, [(5, 1)])
    monkeypatch.setattr(measuring, "_to_transfer", lambda: [shipped])
    monkeypatch.setattr(measuring, "test_split", lambda data, protocol, turns: load_glyphs().select(range(8)))
    path = measure_transfer(episodes=3, results=tmp_path)
    (row,) = json.loads(path.read_text())["rows"]
    assert _fault(row) is None
    assert (row["data"], row["trained_on"], row["protocol"]) == ("omniglot", "glyphs", "alphabets")
    monkeypatch.setattr(measuring, "measure", lambda *a, **k: pytest.fail("measured again"))
    assert json.loads(measure_transfer(episodes=3, results=tmp_path).read_text())["rows"] == [row]
