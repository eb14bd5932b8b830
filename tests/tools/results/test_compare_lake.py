"""Which letters and people the published runs show, and the runs drawn from them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from fsl_course.data import ImageSet
from fsl_course.episodes import LakeSampler
from fsl_course.methods.baselines import baselines
from tools.results import compare_lake

GENERATOR = torch.Generator().manual_seed(0)
PICTURES = torch.randint(0, 256, (44, 9, 1, 28, 28), generator=GENERATOR, dtype=torch.uint8)
LETTERS = ImageSet(
    PICTURES, torch.full((44,), 9), [f"A{i}" for i in range(24)] + [f"B{i}" for i in range(20)], ["A"] * 24 + ["B"] * 20
)
CHOSEN = {"run01": (torch.arange(4, 24), 2, 5), "run02": (torch.arange(24, 44), 7, 0)}  # letters, and the two people


@pytest.fixture
def runs() -> ImageSet:
    pairs = [PICTURES[letters][:, [first, second]] for letters, first, second in CHOSEN.values()]
    names = [f"{run}/class{i:02d}" for run in CHOSEN for i in range(1, 21)]
    return ImageSet(torch.cat(pairs), torch.full((40,), 2), names, [name[:5] for name in names], ["test"] * 40, "runs")


def test_every_published_drawing_is_found(runs):
    found = compare_lake.origin(runs, LETTERS)
    for run, (letters, first, second) in zip((found[:20], found[20:]), CHOSEN.values(), strict=True):
        assert torch.equal(run[:, 0, 0], letters)
        assert torch.equal(run[:, 1, 0], letters)
        assert run[:, :, 1].unique(dim=0).tolist() == [[first, second]]


def test_a_drawing_from_elsewhere_is_refused(runs):
    runs.images[3, 1] += 1
    with pytest.raises(ValueError, match="a published drawing is not among"):
        compare_lake.origin(runs, LETTERS)


def test_runs_drawn_by_halves_keep_their_half(runs):
    sets = compare_lake.drawn(runs, LETTERS)
    places = {picture.numpy().tobytes(): (at // 9, at % 9) for at, picture in enumerate(PICTURES.flatten(0, 1))}
    for name in ("published letters", "published people", "first eight people"):
        letters, people = set(), set()
        for episode in LakeSampler(sets[name]).batch(0, 200):
            shown = (
                episode.support_x.mul(255).round().to(torch.uint8),
                episode.query_x.mul(255).round().to(torch.uint8),
            )
            at = [places[picture.numpy().tobytes()] for part in shown for picture in part]
            letters |= {letter for letter, _ in at}
            people |= {("A" if letter < 24 else "B", person) for letter, person in at}
        assert (letters == set(range(4, 44))) == (name == "published letters"), name
        if name == "published people":
            assert people == {("A", 2), ("A", 5), ("B", 7), ("B", 0)}
            assert letters == set(range(44))
        if name == "first eight people":
            assert people == {(alphabet, person) for alphabet in "AB" for person in range(8)}


def test_a_row_counts_right_answers(runs):
    row = compare_lake.row("Chance", baselines()["chance"], runs, {"drawn": LETTERS}, 50)
    assert len(row["correct"]) == 20
    assert row["published"] == pytest.approx(sum(row["correct"]) / 400)
    assert abs(row["drawn"] - 1 / 20) < 4 * row["drawn_ci95"]


def test_the_stored_table_belongs_to_its_rows():
    story = json.loads(
        (Path(__file__).resolve().parents[3] / "data" / "lake_comparison.json").read_text(encoding="utf-8")
    )
    assert [row["label"] for row in story["rows"]][: len(compare_lake.LEARNERS)] == list(compare_lake.LEARNERS)
    for row in story["rows"]:
        assert row["published"] == pytest.approx(sum(row["correct"]) / 400)
