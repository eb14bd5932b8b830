"""The command line of the results."""

from __future__ import annotations

from tools.results.__main__ import main
from tools.results.runs import RUNS


def test_the_command_line_names_the_nearest_run(capsys):
    assert main(["evaluate", "proto-random-2"]) == 1
    assert 'Did you mean "proto-random-' in capsys.readouterr().err
    assert main(["train"]) == 1
    assert "takes names of runs" in capsys.readouterr().err


def test_status_tells_every_run(capsys):
    assert main(["status"]) == 0
    out = capsys.readouterr().out
    assert all(run.name in out for run in RUNS)
