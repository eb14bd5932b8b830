"""tools/run.py: the lines of RUNS, training through the command line, shipping."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fsl_course.cli import commands
from fsl_course.cli.results_files import papers, rows
from fsl_course.weights.learners import MAKERS, has_head
from tools.results import run as runs
from tools.results.run import LABELS, RUNS, Run, RunError, card_of, data_arguments, ship, train, weights_of, words_of

TINY = Run(
    "tiny", "prototypical", "Prototypical", "", "scripts", "--way 5 --query 3 --steps 3 --width 8", [(5, 1)],
    "prototypical-tiny", data="glyphs",
)  # fmt: skip


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """runs/ and data/checkpoints in a scratch folder."""
    monkeypatch.setattr(runs, "RUNS_FOLDER", tmp_path / "runs")
    monkeypatch.setattr(runs, "CHECKPOINTS", tmp_path / "checkpoints")
    (tmp_path / "checkpoints").mkdir()
    return tmp_path


def put_weights(places: Path, command: str, name: str = "prototypical-glyphs", size: int = 10) -> Path:
    weights = places / "runs" / "tiny" / f"{name}.safetensors"
    weights.parent.mkdir(parents=True, exist_ok=True)
    weights.write_bytes(b"0" * size)
    weights.with_suffix(".json").write_text(json.dumps({"method": "prototypical", "command": command}))
    return weights


def test_every_run_names_a_method_and_a_task_once():
    assert len({run.name for run in RUNS}) == len(RUNS)
    cells = [(run.label, run.protocol, cell) for run in RUNS if run.label for cell in run.cells]
    assert len(set(cells)) == len(cells), "two runs fill one cell"
    ships = [run.ships for run in RUNS if run.ships]
    assert len(set(ships)) == len(ships)
    for run in RUNS:
        assert run.method in MAKERS or run.method == "baselines"
        assert run.protocol in ("random", "alphabets")
        assert run.protocol in run.name
        assert not has_head(run.method) or len({way for way, _ in run.cells}) == 1


def test_every_method_has_a_name_in_the_table():
    plain = [method for method, _, variant in LABELS.values() if not variant]
    assert sorted(plain) == sorted([*MAKERS, "baselines"])
    assert {label for _, label, _ in LABELS.values()} >= {entry["label"] for entry in papers()["papers"]}


def test_omniglot_trains_with_rotations_and_the_alphabets_are_tested_upright():
    random, alphabets = (next(run for run in RUNS if run.protocol == name) for name in ("random", "alphabets"))
    assert data_arguments(random) == data_arguments(random, test=True)
    assert data_arguments(alphabets) == "--data omniglot --protocol alphabets --rotations"
    assert data_arguments(alphabets, test=True) == "--data omniglot --protocol alphabets"


def test_words_of_a_command():
    assert words_of("python train x --way 5 --cosine --set a=true --set b=2 --out DIR") == {
        "--way": "5", "--cosine": "", "set a": "true", "set b": "2", "--out": "DIR",
    }  # fmt: skip


def test_train_writes_into_the_runs_folder_and_is_done_once(places, capsys, monkeypatch):
    monkeypatch.setattr(commands, "CARD_EPISODES", 2)
    assert train(TINY) == 0
    weights = weights_of(TINY, 0)
    assert weights == places / "runs" / "tiny" / "prototypical-glyphs.safetensors"
    assert card_of(weights, TINY)["seed"] == 0
    before = weights.stat().st_mtime_ns
    assert train(TINY) == 0
    assert "is there" in capsys.readouterr().out
    assert weights.stat().st_mtime_ns == before
    assert card_of(weights, TINY._replace(arguments="--lr 1e-3 --width 8"))  # the card writes 0.001
    with pytest.raises(RunError, match=r"was not trained as tiny says \(--steps 4\)"):
        card_of(weights, TINY._replace(arguments="--steps 4"))

    ship(TINY)
    shipped = places / "checkpoints" / "prototypical-tiny.safetensors"
    assert shipped.read_bytes() == weights.read_bytes()
    assert json.loads(shipped.with_suffix(".json").read_text())["method"] == "prototypical"
    assert "tools.data.checksums" in capsys.readouterr().out
    weights.unlink()
    assert weights_of(TINY, 0) == shipped  # the shipped ones stand in


def test_large_weights_and_unnamed_ones_do_not_ship(places, monkeypatch):
    put_weights(places, f"train --data glyphs {TINY.arguments}", size=runs.LARGEST + 1)
    with pytest.raises(RunError, match="at most 1 MB ship"):
        ship(TINY)
    with pytest.raises(RunError, match="does not ship"):
        ship(TINY._replace(ships=None))
    assert not list((places / "checkpoints").iterdir())
    (shipped := places / "checkpoints" / "prototypical-tiny.safetensors").write_bytes(b"good")
    with pytest.raises(RunError, match="at most 1 MB ship"):
        ship(TINY)
    assert shipped.read_bytes() == b"good"


def test_a_card_with_a_flag_that_the_run_does_not_have(places):
    weights = put_weights(places, f"train --data glyphs {TINY.arguments} --bfloat16")
    with pytest.raises(RunError, match=r"not trained as tiny says \(no --bfloat16\)"):
        card_of(weights, TINY)
    assert card_of(weights, TINY._replace(arguments=f"{TINY.arguments} --bfloat16"))


def test_a_folder_with_two_weights_or_an_unfinished_run(places):
    put_weights(places, "x", "a").with_suffix(".json").unlink()
    assert weights_of(TINY, 0) is None  # no card: the run is not finished
    put_weights(places, "x", "b")
    with pytest.raises(RunError, match="several weights"):
        weights_of(TINY, 0)


def test_further_seeds_have_folders_of_their_own():
    run = TINY._replace(seeds=(3, 4))
    assert [runs.folder_of(run, seed).name for seed in run.seeds] == ["tiny", "tiny-seed4"]


def test_the_command_line_names_the_nearest_run(capsys):
    assert runs.main(["evaluate", "proto-random-2"]) == 1
    assert 'Did you mean "proto-random-' in capsys.readouterr().err
    assert runs.main(["train"]) == 1
    assert "takes names of runs" in capsys.readouterr().err


def test_status_tells_every_run(capsys):
    assert runs.main(["status"]) == 0
    out = capsys.readouterr().out
    assert all(run.name in out for run in RUNS)


def test_files_of_rows_belong_to_runs():
    assert {row["run"] for row in rows()} <= {run.name for run in RUNS}
    for row in rows():
        run = next(run for run in RUNS if run.name == row["run"])
        assert (row["method"], row["protocol"]) == (run.method, run.protocol)
        assert (row["way"], row["shot"]) in run.cells
