"""The comparison behind lesson 17: what a run writes, that a stopped one goes on, and that the committed file is whole."""

import json

import pytest
import torch

from fsl_course import EpisodeSampler, evaluate, fit
from fsl_course.episodes import PictureSampler
from fsl_course.weights.learners import make
from tests.conftest import toy_images
from tools.results import compare_labels


@pytest.fixture
def small(monkeypatch):
    """Toys instead of Glyphs, a tiny net, two numbers of letters."""
    for name, value in {
        "LETTERS": (5, 10),
        "FEW": 5,
        "WIDTH": 4,
        "TUNE_STEPS": 1,
        "WARPS": {"no labels": (1.0, {})},
    }.items():
        monkeypatch.setattr(compare_labels, name, value)
    return toy_images(48, 12)


def test_rows_repeat_what_fit_and_evaluate_give_and_a_stopped_run_goes_on(small, tmp_path, monkeypatch):
    out, work = tmp_path / "rows.json", tmp_path / "work"
    arguments = ["--steps", "2", "--episodes", "3", "--out", str(out), "--work", str(work)]
    wanted = [("no labels", False), ("no labels", True), ("5 letters", False), ("no labels, then 5 letters", False)]
    monkeypatch.setattr(compare_labels, "labels_of_rows", lambda: [wanted[:2]])
    compare_labels.main([*arguments, "--seeds", "1"], small)
    before = json.loads(out.read_text())["rows"]
    monkeypatch.setattr(compare_labels, "labels_of_rows", lambda: [wanted])
    compare_labels.main([*arguments, "--seeds", "1"], small)
    rows = json.loads(out.read_text())["rows"]
    assert rows[:2] == before
    assert [row["label"] for row in rows] == ["no labels", "no labels, tuned", "5 letters", "no labels, then 5 letters"]
    torch.manual_seed(0)
    learner = make("unsupervised", width=4)
    fit(learner, PictureSampler(small.split("train"), 50, 1, seed=0), steps=2, progress=False)
    test = small.split("test")
    found = evaluate(learner, EpisodeSampler(test, 5, 1, 3), 3)
    assert rows[0]["correct"] == (found.per_episode * 15).round().int().tolist()
    with pytest.raises(SystemExit, match="other settings"):
        compare_labels.main(["--steps", "3", "--episodes", "3", "--out", str(out)], small)


def test_tasks_without_collisions_hold_pictures_of_different_letters(small):
    task = compare_labels.Apart(small, 20, 2)[3]
    assert len((task.classes // small.images.shape[1]).unique()) == 20
    assert task.query_y.bincount().tolist() == [2] * 20
    same = compare_labels.Apart(small, 20, 2, strength=0)[3]
    assert torch.equal(same.query_x, same.support_x[same.query_y])


def test_clusters_become_classes_of_whole_episodes(small, tmp_path, monkeypatch):
    monkeypatch.setattr(compare_labels, "CLUSTERS", 4)
    heap = small.images.flatten(0, 1)
    middles = torch.arange(len(heap)) % 3 * 10.0
    made = compare_labels.clusters(small, middles[:, None], 3, 5, seed=0)
    assert sorted(made.counts.tolist()) == [len(heap) // 3] * 3
    first = made.images[0]
    assert any(torch.equal(first, heap[start::3]) for start in range(3))
    alone = torch.zeros(len(heap), 1)
    alone[0] = 9.0  # a cluster of a single picture is left out
    assert len(compare_labels.clusters(small, alone, 2, 5, seed=0)) == 1
    run = compare_labels.Run(small, 0, 2, tmp_path)
    assert run.clusters()[0].query_x.shape[0] >= 4
    for label in ("CACTUs", "UMTRA", "5 letters, warped", "5 letters, twice as long", "random, MAML"):
        assert run.made(label)(EpisodeSampler(small, 5, 1, 3)[0]).shape == (15, 5)


def test_labelled_episodes_with_a_warp_show_the_same_drawings(small):
    plain, bent = EpisodeSampler(small, 5, 1, 3, seed=2), compare_labels.Warped(small, 5, 1, 3, seed=2)
    assert torch.equal(plain[4].query_y, bent[4].query_y)
    assert not torch.equal(plain[4].query_x, bent[4].query_x)
    assert torch.equal(bent.batch(3, 2).support_x[1], bent[4].support_x)
    assert (plain[4].support_x - bent[4].support_x).abs().mean() < 0.5


def test_fine_tuning_changes_a_copy_only(small):
    torch.manual_seed(0)
    learner = make("prototypical", width=4).eval()
    before = {name: tensor.clone() for name, tensor in learner.state_dict().items()}
    episode = EpisodeSampler(small, 3, 1, 2)[0]
    tuned = compare_labels.tuned(learner, episode, 0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in learner.state_dict().items())
    assert not torch.equal(tuned(episode), learner(episode))


def test_the_committed_file_is_whole():
    about = json.loads(compare_labels.OUT.read_text(encoding="utf-8"))
    assert "--steps 80 --episodes 300 --seeds 3" in about["command"]
    names = [
        (f"{label}, tuned" if tune else label, tune) for part in compare_labels.labels_of_rows() for label, tune in part
    ]
    expected = {(name, seed) for name, _ in names for seed in range(1 if name == "pixels" else 3)}
    assert {(row["label"], row["seed"]) for row in about["rows"]} == expected
    lengths = {name: compare_labels.TUNE_EPISODES if tune else 300 for name, tune in names}
    assert all(len(row["correct"]) == lengths[row["label"]] for row in about["rows"])
