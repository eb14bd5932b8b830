"""The comparison behind lesson 24: what a draw holds, that a stopped run goes on, and that the committed file is whole."""

import json

import pytest
import torch

from fsl_course.data.assets import asset
from tests.conftest import toy_images
from tools.results import compare_continual as compare


@pytest.fixture
def small(monkeypatch):
    """Toys instead of Glyphs, a tiny net, two sessions."""
    sizes = {"WIDTH": 4, "BASE": 4, "NEW": 2, "SESSIONS": 2, "BASE_SHOTS": 3, "SHOTS": 2, "JUDGED": 2}
    steps = {"BASE_STEPS": 10, "JOINT_STEPS": 3}
    tuned = {"fine-tuning": {"steps": 1, "lr": 1e-3}, "replay of 1": {"keep": 1, "steps": 1, "lr": 1e-3}}
    for name, value in {**sizes, **steps, "GROWING": tuned, "GRID": {}}.items():
        monkeypatch.setattr(compare, name, value)
    monkeypatch.setattr(compare, "EXAMINED", {"examined: fine-tuning": tuned["fine-tuning"]})
    monkeypatch.setitem(tuned, "replay of 5", {"keep": 5, "steps": 1, "lr": 1e-3})
    others = (compare.STORED, compare.MEANS_AFTER, compare.JOINT, compare.OTHER)
    monkeypatch.setattr(compare, "LABELS", ("prototypes", *tuned, *others, *compare.EXAMINED))
    return toy_images(40, 8)


def test_a_draw_parts_sessions_and_judged_drawings(small):
    draw = compare.Draw(small, 3)
    x, y = draw.session(0)
    assert x.shape == (12, 1, 28, 28)
    assert y.bincount().tolist() == [3] * 4
    assert draw.session(2)[1].tolist() == [6, 6, 7, 7]
    learned = {picture.numpy().tobytes() for t in range(3) for picture in draw.session(t)[0]}
    judged = {picture.numpy().tobytes() for picture in draw.pictures[:, -2:].flatten(0, 1)}
    assert not learned & judged
    assert torch.equal(compare.Draw(small, 3).pictures, draw.pictures)
    assert not torch.equal(compare.Draw(small, 4).pictures, draw.pictures)


def test_right_answers_are_counted_for_each_session(small):
    draw = compare.Draw(small, 0)
    truth = torch.eye(8)[torch.arange(6).repeat_interleave(2)]
    truth[-1] = torch.eye(8)[0]  # one drawing of the last letter is taken for the first
    assert draw.correct(lambda x: truth, 1) == [8, 3]


def test_a_stopped_run_goes_on_and_other_settings_are_refused(small, tmp_path, monkeypatch):
    out = tmp_path / "rows.json"
    compare.main(["--draws", "1", "--tune", "0", "--out", str(out)], small)
    before = json.loads(out.read_text())["rows"]
    assert [row["label"] for row in before] == list(compare.LABELS)
    assert [len(row["correct"]) for row in before] == [3, 3, 3, 3, 3, 1, 1, 1, 1]
    compare.main(["--draws", "2", "--tune", "0", "--out", str(out)], small)
    rows = json.loads(out.read_text())["rows"]
    assert rows[: len(before)] == before
    assert [row["seed"] for row in rows] == [0] * 9 + [1] * 9
    monkeypatch.setattr(compare, "BASE_STEPS", 20)
    with pytest.raises(SystemExit, match="other settings"):
        compare.main(["--draws", "1", "--tune", "0", "--out", str(out)], small)


def test_stored_drawings_name_by_their_means(small):
    draw = compare.Draw(small, 0)
    base, _ = compare.base_session(draw)
    _, net = compare.growing(base, draw, {"keep": 2, "steps": 0, "lr": 0.0})
    with torch.no_grad():
        z = net.encoder(draw.pictures[:, :2].flatten(0, 1)).view(-1, 2, net.weight.shape[1]).mean(1)
    assert torch.allclose(compare.by_stored_means(net).means, z[:8], atol=1e-2)  # stored as whole numbers, 0 to 255
    assert compare.by_stored_means(net).counts.tolist() == [2] * 8


def test_an_untouched_encoder_is_examined_like_the_prototypes(small):
    draw = compare.Draw(small, 1)
    base, _ = compare.base_session(draw)
    found = compare.examined(base, draw, {"steps": 3, "lr": 1e-2, "head_only": True})
    first, last = (compare.prototypes_of(base.encoder, draw, every=True)[0][i] for i in (0, -1))
    assert found["means"] == [last[0], first[0]]
    assert found["put_back"] == draw.correct(base, 0)[0]
    assert found["own"][0] <= found["own"][1]


def test_the_committed_table_is_whole():
    table = json.loads(asset("continual_comparison.json").read_text(encoding="utf-8"))
    rows = {(row["label"], row["seed"]): row for row in table["rows"]}
    assert len(rows) == len(table["rows"])
    for seed in range(20):
        for label in compare.LABELS:
            counts = rows[label, seed]["correct"]
            assert len(counts[-1]) == 9
            assert all(0 <= row[0] <= 480 and all(0 <= c <= 40 for c in row[1:]) for row in counts)
        assert len(rows["prototypes", seed]["snapshots"]) == compare.SNAPSHOTS
        for label in compare.EXAMINED:  # the fewer letters compete, the more are named rightly
            row = rows[label, seed]
            assert row["own"][0] <= row["own"][1]
            assert row["means"][0] <= row["means"][1]
            assert row["correct"][-1][0] == row["means"][0]
    assert all((f"val: {label}", seed) in rows for label in compare.GRID for seed in range(2))
