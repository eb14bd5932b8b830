"""Lake's one-shot test: one alphabet, one person's support, another person's queries; and the published runs as they are."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fsl_course.__main__ import main
from fsl_course.data import ImageSet, load_lake_runs
from fsl_course.episodes import LakeSampler, PublishedRuns

RUNS = 3


@pytest.fixture(scope="module")
def letters() -> ImageSet:
    """Three alphabets of 24, 20 and 8 letters by five people. The grey value of a drawing is its person."""
    groups = ["A"] * 24 + ["B"] * 20 + ["C"] * 8
    people = torch.arange(5, dtype=torch.uint8)[None, :, None, None, None].expand(len(groups), 5, 1, 28, 28)
    return ImageSet(people.contiguous(), torch.full((len(groups),), 5), [f"c{i}" for i in range(len(groups))], groups)


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """Three runs of random ink. Test item i shows the same picture as training drawing 21 - i, moved by nothing."""
    rng = np.random.default_rng(0)
    for run in range(1, RUNS + 1):
        home = tmp_path / f"run{run:02d}"
        for part in ("training", "test"):
            (home / part).mkdir(parents=True)
        lines = []
        for number in range(1, 21):
            data = io.BytesIO()
            Image.fromarray(rng.random((105, 105)) > 0.2).save(data, "PNG")
            for name in (f"training/class{21 - number:02d}.png", f"test/item{number:02d}.png"):
                (home / name).write_bytes(data.getvalue())
            lines.append(f"{home.name}/test/item{number:02d}.png {home.name}/training/class{21 - number:02d}.png")
        (home / "class_labels.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return tmp_path


def test_a_run_has_twenty_letters_of_one_alphabet_and_two_people(letters):
    seen = set()
    for episode in LakeSampler(letters, seed=3).batch(0, 60):
        assert len(set(episode.classes.tolist())) == 20
        assert len({letters.groups[i] for i in episode.classes.tolist()}) == 1
        (support,), (query,) = ((x.mul(255).round().unique().tolist()) for x in (episode.support_x, episode.query_x))
        assert support != query
        assert sorted(episode.query_y.tolist()) == list(range(20))
        seen.add((letters.groups[int(episode.classes[0])], support, query))
    assert {alphabet for alphabet, *_ in seen} == {"A", "B"}  # the third has too few letters
    assert len(seen) > 20  # of 2 * 5 * 4


def test_runs_are_a_pure_function_of_seed_and_index(letters):
    batch = LakeSampler(letters, seed=1).batch(254, 4)
    for number, episode in enumerate(batch):
        again = LakeSampler(letters, seed=1)[254 + number]
        assert torch.equal(episode.query_x, again.query_x)
        assert torch.equal(episode.support_y, again.support_y)
    assert not torch.equal(batch.classes, LakeSampler(letters, seed=2).batch(254, 4).classes)


def test_the_published_runs_come_in_their_order_with_their_pairs(published):
    runs = load_lake_runs(published)
    assert (runs.images.shape, runs.images.dtype) == ((20 * RUNS, 2, 1, 28, 28), torch.uint8)
    assert runs.groups == [f"run{run:02d}" for run in range(1, RUNS + 1) for _ in range(20)]
    assert torch.equal(runs.images[:, 0], runs.images[:, 1])  # the pairs of class_labels.txt, which go backwards
    sampler = PublishedRuns(runs)
    for number in range(RUNS + 1):
        episode = sampler[number]
        assert {runs.groups[i] for i in episode.classes.tolist()} == {f"run{number % RUNS + 1:02d}"}
        nearest = torch.cdist(episode.query_x.flatten(1), episode.support_x.flatten(1)).argmin(1)
        assert torch.equal(episode.support_y[nearest], episode.query_y)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a.png b.png\n", "should pair 20 test drawings with 20 training drawings"),
        ("run01/test/item01.png run01/training/class01.png\n" * 20, "should pair 20 test drawings with 20"),
        ("only\n" * 20, "should pair 20"),
    ],
)
def test_a_broken_list_is_refused(published, text, words):
    (published / "run01" / "class_labels.txt").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=words):
        load_lake_runs(published)


def test_a_folder_without_runs_says_what_it_should_hold(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"holds no run01/class_labels\.txt: name the folder that all_runs\.zip"
    ):
        load_lake_runs(tmp_path)


def test_the_command_line_tests_published_runs(published, capsys):
    words = [
        "evaluate",
        "prototypical",
        "--trained-on",
        "omniglot-alphabets",
        "--data",
        "omniglot",
        "--protocol",
        "lake",
    ]
    assert main([*words, "--runs", str(published), "--json"]) == 0
    out, err = capsys.readouterr()
    row = json.loads(out)
    assert (row["mean"], row["way"], row["shot"], row["query"], row["episodes"]) == (1.0, 20, 1, 1, RUNS)
    assert (row["protocol"], err) == ("lake", "")  # whose test alphabets these weights have not seen: no note
    for extra, words_of_error in (
        (["--way", "5"], "--protocol lake is 20-way 1-shot with one query a class: leave --way out"),
        (["--rotations"], "draws upright letters and judges each alone: leave --rotations out"),
        (["--transductive"], "leave --transductive out"),
        (["--split", "train"], "no class"),
    ):
        assert main([*words, "--runs", str(published), *extra]) != 0, extra
        assert words_of_error in capsys.readouterr().err
    assert (
        main(["evaluate", "prototypical", "--data", "omniglot", "--protocol", "random", "--runs", str(published)]) != 0
    )
    assert "--runs goes with --protocol lake" in capsys.readouterr().err
