import json
import sys
from pathlib import Path

import pytest
import torch

from tools import race_maml

FAKE = """
from learn2learn.algorithms.base_learner import BaseLearner
class MAML(BaseLearner):
    pass
"""


@pytest.mark.parametrize(("net", "steps"), [("mlp", 1), ("mlp", 5), ("batch", 1), ("group", 2)])
def test_the_peer_and_the_course_have_the_same_meta_gradient(net, steps):
    assert race_maml.largest_difference(net, steps, None) < 1e-10


def test_the_peer_computes_the_same_function_in_another_layout():
    model, episodes = race_maml.model_and_tasks("batch", 1, torch.float64)
    peer = race_maml.as_others_write_it(race_maml.model_and_tasks("batch", 1, torch.float64)[0])
    kinds = [type(layer).__name__ for layer in peer]
    assert kinds == ["Conv2d", "BatchNorm2d", "ReLU", "MaxPool2d"] * 4 + ["Flatten", "Linear"]
    assert peer[4].weight.is_contiguous()
    assert not model.encoder.layers[4].weight.is_contiguous()
    assert torch.allclose(model(episodes[0].query_x), peer(episodes[0].query_x), atol=1e-10)


def test_nothing_is_timed_where_gradients_differ(monkeypatch):
    def halved(model, episodes, steps):
        return [g / 2 for g in race_maml.clone_and_adapt(model, episodes, steps)]

    monkeypatch.setattr(race_maml, "course", halved)
    with pytest.raises(AssertionError, match="differ by"):
        race_maml.race("mlp", 2, 1, 1, None)


def test_a_row_of_the_race(tmp_path, capsys):
    out = tmp_path / "speed.json"
    race_maml.main(["--rows", "25 tasks", "--repeats", "2", "--out", str(out)])
    found = json.loads(out.read_text())
    assert list(found["rows"]) == ["sine MLP, 25 tasks, 5 steps"]
    row = found["rows"]["sine MLP, 25 tasks, 5 steps"]
    assert row["repeats"] == 2
    assert set(row["seconds"]) == {"course", "clone and adapt"}
    assert row["largest_difference"] < 1e-10
    assert "clone and adapt" in capsys.readouterr().out


def test_the_shipped_race_ran_all_rows():
    shipped = json.loads(race_maml.OUT.read_text())
    assert list(shipped["rows"]) == list(race_maml.ROWS)
    for name, (_, _, _, repeats) in race_maml.ROWS.items():
        row = shipped["rows"][name]
        assert row["repeats"] == repeats
        assert row["largest_difference"] < 1e-8
        assert all(seconds > 0 for seconds in row["seconds"].values())


def test_a_checkout_is_loaded_without_its_compiled_parts(tmp_path):
    with pytest.raises(FileNotFoundError, match="source checkout"):
        race_maml.learn2learn_from(tmp_path)
    folder = tmp_path / "learn2learn" / "algorithms"
    folder.mkdir(parents=True)
    for package in (folder, folder.parent):
        (package / "__init__.py").write_text("raise ImportError('compiled parts')")
    (folder / "maml.py").write_text(FAKE)
    (folder / "base_learner.py").write_text("class BaseLearner: pass")
    try:
        found = race_maml.learn2learn_from(tmp_path)
        assert Path(sys.modules[found.__module__].__file__) == folder / "maml.py"
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == "learn2learn"]:
            del sys.modules[name]
