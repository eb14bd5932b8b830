"""The comparison behind lesson 22: what an attack changes, that a stopped run goes on, and that the table is whole."""

import json

import pytest
import torch

from fsl_course import EpisodeSampler, load_glyphs
from fsl_course.methods.base import class_means
from fsl_course.methods.prototypical import PrototypicalNetwork
from fsl_course.nets import conv4
from tools.results import compare_trust as compare


@pytest.fixture(scope="module")
def task():
    return EpisodeSampler(load_glyphs().split("test"), 5, 5, compare.CRAFT + compare.FRESH, seed=3)[0]


@pytest.fixture
def learner():
    torch.manual_seed(0)
    return PrototypicalNetwork(conv4(4)).eval()


def test_halves_share_no_query_and_a_fifth_is_one_of_each_class(task):
    own, fresh = compare.halves(task)
    assert own.query_y.bincount().tolist() == [compare.CRAFT] * 5
    assert fresh.query_y.bincount().tolist() == [compare.FRESH] * 5
    pictures = [{bytes(x.numpy().tobytes()) for x in part.query_x} for part in (own, fresh)]
    assert not pictures[0] & pictures[1]
    assert sorted(task.support_y[compare.a_fifth(task)].tolist()) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("attack", [*compare.ATTACKS, "a fifth flipped"])
def test_an_attack_changes_what_its_name_says(attack, task, learner):
    bad = compare.attacked(attack, learner, task, 0, learner)
    pixels = (bad.support_x != task.support_x).flatten(1).any(1).sum()
    labels, queries = (bad.support_y != task.support_y).sum(), (bad.query_x != task.query_x).flatten(1).any(1).sum()
    rows = 25 if ", all" in attack else 5 if "a fifth" in attack else int(attack.startswith("one"))
    if "queries" in attack:
        assert (int(pixels), int(labels), int(queries)) == (0, 0, len(task.query_x))
    else:
        assert int(queries) == 0
        assert int(labels if "flipped" in attack else pixels) == rows
        assert int(pixels if "flipped" in attack else labels) == 0


@pytest.mark.parametrize("attack", compare.EACH)
def test_one_of_each_is_every_picture_at_one_shot(attack, learner):
    one = EpisodeSampler(load_glyphs().split("test"), 5, 1, 2, seed=3)[0]
    change = (compare.attacked(attack, learner, one, 0, learner).support_x - one.support_x).flatten(1).abs().amax(1)
    assert bool((change > 0).all())
    assert float(change.max()) <= compare.LARGE + 1e-6
    single = compare.attacked(attack.replace("one of each", "a fifth"), learner, one, 0, learner)
    assert int((single.support_x != one.support_x).flatten(1).any(1).sum()) == 1


def test_a_unit_centre_knows_no_length_and_a_plain_one_does(learner):
    rows = torch.randn(10, 6, generator=torch.Generator().manual_seed(0))
    labels, query = torch.arange(2).repeat(5), torch.randn(4, 6, generator=torch.Generator().manual_seed(1))
    longer = rows * torch.linspace(1, 30, 10)[:, None]
    for kind, same in (("unit mean", True), ("unit geometric", True), ("mean", False), ("geometric", False)):
        scores = [compare.ByCentre(learner.encoder, kind).score(z, labels, query, 2) for z in (rows, longer)]
        assert torch.allclose(*scores, atol=1e-4) is same, kind


def test_a_class_without_a_picture_wins_no_query(task, learner):
    one = EpisodeSampler(load_glyphs().split("test"), 5, 1, 2, seed=3)[0]
    lost = int(one.support_y[0])
    moved = one.support_y.clone()
    moved[0] = (lost + 1) % 5
    bad = compare.replace(one, support_y=moved)
    kept = [k for k in range(5) if k != lost]
    with torch.no_grad():
        z, q = learner.embed(one.support_x), learner.embed(one.query_x)
        centres = class_means(z, torch.tensor([kept.index(k) for k in moved.tolist()]), 4)
    wanted = torch.tensor(kept)[torch.cdist(q, centres).argmin(1)] == one.query_y
    assert compare.right(learner, bad) == int(wanted.sum())


def test_a_stopped_run_goes_on(tmp_path, monkeypatch):
    out, names = tmp_path / "rows.json", [("prototypical", 1, "nothing"), ("mean of prototypical", 5, "nothing")]
    monkeypatch.setattr(compare, "rows_to_measure", lambda only: names[:1])
    compare.main(["--episodes", "4", "--out", str(out)])
    first = json.loads(out.read_text())["rows"]
    monkeypatch.setattr(compare, "rows_to_measure", lambda only: names)
    compare.main(["--episodes", "4", "--out", str(out)])
    rows = json.loads(out.read_text())["rows"]
    assert rows[:1] == first
    assert [row["learner"] for row in rows] == ["prototypical", "mean of prototypical"]
    with pytest.raises(SystemExit, match="other settings"):
        compare.main(["--episodes", "5", "--out", str(out)])


def test_the_committed_table_is_whole():
    table = json.loads(compare.OUT.read_text(encoding="utf-8"))
    assert {(row["learner"], row["shots"], row["attack"]) for row in table["rows"]} == set(compare.rows_to_measure([]))
    for row in table["rows"]:
        for key, most in table["queries"].items():
            assert len(row[key]) == table["episodes"] // (3 if row["learner"] == "maml" else 1)
            assert max(row[key]) <= most


def test_the_first_committed_row_repeats():
    table = json.loads(compare.OUT.read_text(encoding="utf-8"))
    found = compare.run("prototypical", 5, "one label flipped", 3, load_glyphs().split("test"))
    (row,) = [r for r in table["rows"] if r["label"] == "prototypical, 5 shots: one label flipped"]
    assert found == {key: row[key][:3] for key in found}
