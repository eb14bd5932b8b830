import argparse
import json
import subprocess
import sys

import pytest

from fsl_course.cli.terminal import exit_status
from tools.benchmark import options


def parsed(*words: str) -> argparse.Namespace:
    return options.parser().parse_args(words)


def test_an_unknown_work_suggests_the_nearest():
    with pytest.raises(
        ValueError, match=r'no work \'maml-cov4\'. Did you mean "maml-conv4"\? There are: sampling-memory'
    ):
        options.run(parsed("--only", "maml-cov4"))


@pytest.mark.parametrize("name", ["repeats", "threads"])
def test_numbers_below_one_are_refused_by_name(name):
    with pytest.raises(ValueError, match=f"--{name} must be at least 1; got 0"):
        options.run(parsed(f"--{name}", "0"))


def test_works_run_in_one_order_and_once():
    assert options.chosen(["time-to-95", "sampling-memory", "time-to-95"]) == ["sampling-memory", "time-to-95"]
    assert options.chosen([]) == list(options.WORKS)


def test_the_help_names_every_work_and_does_not_load_pytorch():
    code = (
        "import sys; from tools.benchmark import options; print(options.parser().format_help());"
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert all(f"  {name} " in done.stdout for name in options.WORKS)


def test_json_lines_and_a_file(tmp_path, capsys):
    out = tmp_path / "made" / "benchmark.json"
    assert options.run(parsed("--quick", "--json", "--only", "maml-sine-25", "--threads", "1", "--out", str(out))) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    written = json.loads(out.read_text())
    assert written["rows"] == lines
    assert written["scaling"] == []
    assert written["about"]["command"].endswith("--only maml-sine-25 --threads 1 --quick --out FILE")
    assert [(row["work"], row["peer"]) for row in lines] == [("maml-sine-25", "clone and adapt")]


def test_a_work_that_was_asked_for_and_cannot_run_is_an_error_in_words(missing, capsys):
    assert options.run(parsed("--quick", "--only", "prototypical-step")) == 1
    assert "prototypical-step: needs easyfsl" in capsys.readouterr().err


def test_a_file_that_cannot_be_written_loses_no_row(tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    words = [
        "--quick",
        "--json",
        "--only",
        "maml-sine-25",
        "--threads",
        "1",
        "--out",
        str(tmp_path / "file" / "b.json"),
    ]
    assert exit_status(lambda: options.run(parsed(*words))) == 1
    out, error = capsys.readouterr()
    assert json.loads(out)["work"] == "maml-sine-25"
    assert error.startswith(f"error: {tmp_path / 'file' / 'b.json'}: ")
    assert "Errno" not in error
