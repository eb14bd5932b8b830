"""Processes that are asked to end, or killed, in the middle of a run; and torchrun itself."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fsl_course.weights.checkpoints import load_file
from tests.fsl_course.training.processes import (
    ROOT,
    ended,
    fit_toy,
    free_port,
    largest_difference,
    start,
    toy_learner,
    weights,
)


def wait_for_steps(checkpoint: Path, processes: list[subprocess.Popen], steps: int = 1) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and all(p.poll() is None for p in processes):
        if checkpoint.exists() and load_file(checkpoint)[1]["done"] >= steps:
            return
        time.sleep(0.02)


LONG = """
with distributed.processes() as group:
    while True:
        history = fit_toy(toy_learner(), 100_000, f"{sys.argv[1]}/run.safetensors")
        print("interrupted after", len(history.loss), history.interrupted, flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals to send to another process")
def test_asked_to_end_all_stop_after_the_same_step_and_a_killed_process_ends_the_run_in_words(tmp_path):
    checkpoint = tmp_path / "run.safetensors"
    processes = start(LONG, tmp_path)
    try:
        wait_for_steps(checkpoint, processes)
        processes[1].send_signal(signal.SIGTERM)
        stopped, first, second = (processes[rank].stdout.readline() for rank in (0, 0, 1))
        assert stopped.startswith("Stopped after step")  # one process speaks for both
        assert re.fullmatch(r"interrupted after \d+ True\n", first)
        assert first == second
        wait_for_steps(checkpoint, processes, int(first.split()[2]) + 1)  # they have gone on
        processes[1].kill()
        deadline = time.monotonic() + 60  # far below the ten minutes of a step
        while processes[0].poll() is None and time.monotonic() < deadline:
            processes[0].send_signal(signal.SIGTERM)  # as torchrun does, at whatever moment
            time.sleep(0.05)
    finally:
        found = ended(processes, seconds=10)
    assert found[1][0] == -signal.SIGKILL
    assert found[0][0] == 1
    done = load_file(checkpoint)[1]["done"]
    assert "ConnectionError: another process of this run has ended" in found[0][2]
    assert re.search(rf"The state after step {done} is in .*run.safetensors: start again to go on", found[0][2])
    resumed, alone = toy_learner(seed=9), toy_learner()
    fit_toy(resumed, done + 2, checkpoint)
    fit_toy(alone, done + 2, None)
    assert largest_difference(weights(resumed), weights(alone)) < 1e-9


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals to send to another process")
def test_when_the_process_that_writes_is_killed_the_others_end_and_its_last_checkpoint_is_whole(tmp_path):
    processes = start(LONG, tmp_path)
    try:
        wait_for_steps(tmp_path / "run.safetensors", processes)
        processes[0].kill()
    finally:
        found = ended(processes, seconds=60)
    assert found[0][0] == -signal.SIGKILL
    assert found[1][0] == 1
    assert "ConnectionError: another process of this run has ended" in found[1][2]
    about = load_file(tmp_path / "run.safetensors")[1]
    assert about["done"] == len(about["history"]["loss"]) >= 3


def test_torchrun_trains_and_only_the_first_process_writes(tmp_path):
    command = [
        "-m", "torch.distributed.run", "--nproc-per-node", "2", f"--master-port={free_port()}", "-m", "fsl_course",
        "train", "prototypical", "--data", "glyphs", "--way", "5", "--query", "2", "--width", "4", "--steps", "4",
        "--tasks", "2", "--validate-every", "4", "--quiet", "--out", str(tmp_path),
    ]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["prototypical-glyphs.json", "prototypical-glyphs.safetensors"]
    assert done.stdout.count("prototypical-glyphs.safetensors and its card") == 1
