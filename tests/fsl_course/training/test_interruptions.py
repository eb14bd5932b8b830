"""Runs of `train` that are stopped, killed, doubled or short of disk space: nothing is lost, and the same command goes on."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from fsl_course.__main__ import main
from fsl_course._system.locks import only_run
from fsl_course.weights.checkpoints import CheckpointError, load_file, load_learner

NAME = "prototypical-glyphs"
TRAIN = ["train", "prototypical", "--way", "2", "--query", "1", "--width", "2", "--quiet", "--validate-every", "1000"]


@pytest.fixture(autouse=True)
def few_episodes(monkeypatch):
    monkeypatch.setattr("fsl_course.cli.train.CARD_EPISODES", 2)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> dict[str, torch.Tensor]:
    """The weights of 4 steps that nothing disturbed."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("whole")
    assert main([*TRAIN, "--steps", "4", "--out", str(folder)]) == 0
    return load_file(folder / f"{NAME}.safetensors")[0]


def same(folder: Path, expected: dict[str, torch.Tensor]) -> bool:
    found = load_file(folder / f"{NAME}.safetensors")[0]
    return found.keys() == expected.keys() and all(torch.equal(found[k], t) for k, t in expected.items())


def pressed(*args, **kwargs):
    raise KeyboardInterrupt


def pressed_at(number: int, function):
    """The function, interrupted the `number`-th time it is called (from 1)."""
    calls = []

    def run(*args, **kwargs):
        calls.append(1)
        if len(calls) == number:
            raise KeyboardInterrupt
        return function(*args, **kwargs)

    return run


WHERE = {
    "loading": ("fsl_course.data.load_glyphs", pressed),
    "making the learner": ("fsl_course.cli.train.learners.make", pressed),
    "training": ("fsl_course.methods.prototypical.PrototypicalNetwork.forward", pressed),
    "testing": ("fsl_course.cli.train.evaluation.evaluate", pressed),
    "between weights and card": ("fsl_course.cli.train._test_rows", pressed),
} | {f"saving, file {n}": ("os.replace", pressed_at(n, os.replace)) for n in range(1, 6)}


@pytest.mark.parametrize("where", WHERE)
def test_ctrl_c_anywhere_leaves_a_run_that_goes_on(where, tmp_path, monkeypatch, capsys, uninterrupted):
    command = [*TRAIN, "--steps", "4", "--out", str(tmp_path)]
    with monkeypatch.context() as patch:
        patch.setattr(*WHERE[where])
        assert main(command) == 130
    error = capsys.readouterr().err
    assert error == "Stopped. The same command goes on from what was saved last.\n"
    assert not list(tmp_path.glob("*.lock"))
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]  # no half-written file
    assert main(command) == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"{NAME}.json", f"{NAME}.safetensors"]
    assert same(tmp_path, uninterrupted)


def test_ctrl_c_while_libraries_are_imported_is_felt_afterwards(tmp_path, monkeypatch, capsys):
    """numpy, cut short, fails with a RecursionError half a second later."""
    monkeypatch.delitem(sys.modules, "fsl_course.cli.train")
    monkeypatch.delattr("fsl_course.cli.train")
    done = []

    class Finder:
        def find_spec(self, name, *rest):
            if name == "fsl_course.cli.train":
                os.kill(os.getpid(), signal.SIGINT)
                done.append(name)  # not reached where the signal is felt at once

    monkeypatch.setattr("sys.meta_path", [Finder(), *sys.meta_path])
    before = signal.getsignal(signal.SIGINT)
    assert main([*TRAIN, "--steps", "4", "--out", str(tmp_path)]) == 130
    assert done == ["fsl_course.cli.train"]
    assert capsys.readouterr().err == "Stopped. The same command goes on from what was saved last.\n"
    assert signal.getsignal(signal.SIGINT) is before
    assert list(tmp_path.iterdir()) == []


def test_files_written_one_after_the_other_are_all_tried_above(tmp_path, monkeypatch):
    """Settings, state at the start and at the end, weights, card: five."""
    written, replace = [], os.replace
    monkeypatch.setattr("os.replace", lambda a, b: (written.append(Path(b).name), replace(a, b)))
    assert main([*TRAIN, "--steps", "4", "--out", str(tmp_path)]) == 0
    state = f"{NAME}.state.safetensors"
    assert written == [f"{NAME}.settings.json", state, state, f"{NAME}.safetensors", f"{NAME}.json"]


@pytest.mark.parametrize("number", range(1, 6))
def test_a_full_disk_at_any_file_is_one_line_and_loses_nothing(number, tmp_path, monkeypatch, capsys, uninterrupted):
    command = [*TRAIN, "--steps", "4", "--out", str(tmp_path)]
    assert main(command) == 0  # an older run in the same place
    older = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    capsys.readouterr()
    calls, replace = [], os.replace

    def full(*args):
        calls.append(1)
        if len(calls) >= number:
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(*args)

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", full)
        assert main(command) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: could not write ")
    assert "No space left on device" in error
    assert "Free some disk space" in error
    assert error.count("\n") == 1
    now = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    kept = older if number <= 4 else {f"{NAME}.json": older[f"{NAME}.json"]}  # the card is written after the weights
    assert kept.items() <= now.items()
    assert load_learner(tmp_path / f"{NAME}.safetensors")
    assert main(command) == 0
    assert same(tmp_path, uninterrupted)


def test_a_killed_run_ends_with_the_same_weights_as_one_that_was_not(tmp_path):
    """Two real processes, the first killed without warning after its first saved steps; then a third, undisturbed."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    steps = "600"

    def command(folder: str) -> list[str]:
        return [sys.executable, "-m", "fsl_course", *TRAIN, "--steps", steps, "--out", str(tmp_path / folder)]

    state = tmp_path / "a" / f"{NAME}.state.safetensors"
    with subprocess.Popen(command("a"), env=environment) as run:
        try:
            until = time.monotonic() + 120
            while run.poll() is None and not (state.exists() and load_file(state)[1]["done"]):
                assert time.monotonic() < until, "the first hundred steps were never saved"
                time.sleep(0.01)
        finally:
            run.kill()
    assert run.returncode == -signal.SIGKILL, "it was done before it could be killed: take more steps"
    done = load_file(state)[1]["done"]
    assert 0 < done < int(steps)
    assert json.loads((tmp_path / "a" / f"{NAME}.settings.json").read_text())["options"]["steps"] == int(steps)
    for folder in "ab":
        finished = subprocess.run(command(folder), env=environment, capture_output=True, text=True, timeout=300)
        assert finished.returncode == 0, finished.stderr
        assert finished.stderr == ""  # --quiet: no bar
        assert sorted(p.name for p in (tmp_path / folder).iterdir()) == [f"{NAME}.json", f"{NAME}.safetensors"]
    assert same(tmp_path / "a", load_file(tmp_path / "b" / f"{NAME}.safetensors")[0])


def test_two_runs_in_one_folder_the_second_is_refused(tmp_path, capsys):
    with only_run(tmp_path / f"{NAME}.lock"):
        assert main([*TRAIN, "--steps", "4", "--out", str(tmp_path)]) == 1
        error = capsys.readouterr().err
        assert f"a run is already under way in {tmp_path}: process {os.getpid()} on " in error
        assert error.count("\n") == 1
        assert [p.name for p in tmp_path.iterdir()] == [f"{NAME}.lock"]
        # another method in the same folder is no second run of the first
        assert main(["train", "siamese", *TRAIN[2:], "--steps", "1", "--out", str(tmp_path)]) == 0


def test_a_damaged_state_is_refused_and_kept(tmp_path, capsys):
    state = tmp_path / f"{NAME}.state.safetensors"
    state.write_bytes(b"not a state")
    assert main([*TRAIN, "--steps", "4", "--out", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert "is not a whole checkpoint" in error
    assert "Delete it to start again" in error
    assert state.read_bytes() == b"not a state"
    with pytest.raises(CheckpointError):
        load_file(state)


def test_settings_that_fail_at_the_first_step_do_not_stand_in_the_way_of_better_ones(tmp_path, capsys, uninterrupted):
    """Ones with too high a rate, another width, another layer order: none has a step that could be lost."""
    command = [*TRAIN, "--steps", "4", "--out", str(tmp_path)]
    for worse in (["--lr", "1e30", "--seed", "3"], ["--width", "3"], ["--halving", "stride"]):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("fsl_course.methods.prototypical.PrototypicalNetwork.forward", pressed)
            assert main([*command, *worse]) == 130
        assert load_file(tmp_path / f"{NAME}.state.safetensors")[1]["done"] == 0
    capsys.readouterr()
    assert main(command) == 0
    assert capsys.readouterr().err == ""
    assert same(tmp_path, uninterrupted)


def test_a_run_with_another_halving_is_another_run_though_its_weights_look_the_same(tmp_path, monkeypatch, capsys):
    command = [*TRAIN, "--steps", "2", "--out", str(tmp_path)]
    with monkeypatch.context() as patch:
        patch.setattr("fsl_course.cli.train.checkpoints.save_learner", pressed)
        assert main(command) == 130
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    capsys.readouterr()
    assert main([*command, "--halving", "stride"]) == 1
    error = capsys.readouterr().err
    assert "belongs to a run with other settings (halving: 'pool' there, 'stride' now)" in error
    assert "to start anew, delete it or name another place" in error
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before
    settings = tmp_path / f"{NAME}.settings.json"
    older = json.loads(before[settings.name])
    del older["settings"]["halving"]  # written before there was a choice
    settings.write_text(json.dumps(older))
    assert main(command) == 0


def test_an_unfinished_run_cannot_be_evaluated_and_says_how_to_finish_it(tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        patch.setattr("fsl_course.cli.train.checkpoints.save_learner", pressed)
        assert main([*TRAIN, "--steps", "2", "--out", str(tmp_path)]) == 130
    capsys.readouterr()
    assert main(["evaluate", str(tmp_path)]) == 1
    assert "is not finished: the command that began it goes on with it" in capsys.readouterr().err
    assert main(["evaluate", str(tmp_path / "gone")]) == 1
    assert f"there is no folder {tmp_path / 'gone'}" in capsys.readouterr().err
