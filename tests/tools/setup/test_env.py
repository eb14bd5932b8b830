"""The set-up script with a stand-in for Python, uv and pip: what it asks of them, and what it leaves behind when they fail."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.tools.kit.test_build import start

SCRIPT = Path(__file__).resolve().parents[3] / "tools" / "setup" / "env.sh"
TORCH = "torch==" + re.search(r"^TORCH_VERSION=(.+)$", SCRIPT.read_text(encoding="utf-8"), re.M)[1]
VISION = "torchvision==" + re.search(r"^TORCHVISION_VERSION=(\S+)", SCRIPT.read_text(encoding="utf-8"), re.M)[1]
CPU_INDEX = "--index-url https://download.pytorch.org/whl/cpu"

# One stand-in plays python, .venv/bin/python and uv. It writes down every call that installs or makes something; calls that
# ask a question are answered with "yes". A file named fail-WORD makes the calls that contain WORD fail.
STAND_IN = """#!/bin/bash
name=$(basename "$0")
case "$*" in
    *sys.executable*) printf %s "$0"; exit ;;
    *--version | -c*) exit 0 ;;
    -I*) [ ! -e "$HERE/fail-health" ]; exit ;;
esac
echo "$name $*" >>"$HERE/log"
for word in "$HERE"/fail-*; do
    case "$*" in *"${word##*/fail-}"*) exit 1 ;; esac
done
case "$*" in
    *venv*--python* | "-m venv"*) mkdir -p "${@: -1}/bin" && cp "$HERE/bin/python3.11" "${@: -1}/bin/python" ;;
esac
"""


class Machine:
    """A folder with the project's inputs and a PATH of stand-ins."""

    def __init__(self, root: Path, *, uv: bool) -> None:
        self.root = root
        for folder in ("bin", "tools/setup"):
            (root / folder).mkdir(parents=True)
        shutil.copy(SCRIPT, root / "tools" / "setup")
        (root / "pyproject.toml").write_text("[project]\n")
        (root / "constraints.txt").write_text("tqdm==4.0.0\n")
        self.program("python3.11", STAND_IN)
        self.program("uv", STAND_IN if uv else "#!/bin/sh\nexit 127\n")  # a shim that exists and does not run
        self.program("uname", "#!/bin/sh\necho Linux\n")

    def program(self, name: str, text: str) -> None:
        (self.root / "bin" / name).write_text(text)
        (self.root / "bin" / name).chmod(0o755)

    def setup(self, **env: str) -> tuple[int, list[str], str]:
        """Runs the script; its exit status, the calls it made, and what it said."""
        (self.root / "log").write_text("")
        clean = {k: v for k, v in os.environ.items() if k not in ("PYTHON", "TORCH_INDEX", "PIP_FIND_LINKS")}
        clean |= {"PATH": f"{self.root / 'bin'}:{os.environ['PATH']}", "HERE": str(self.root)} | env
        done = subprocess.run(
            ["bash", self.root / "tools" / "setup" / SCRIPT.name], env=clean, capture_output=True, text=True, timeout=60
        )
        return done.returncode, (self.root / "log").read_text().splitlines(), done.stdout + done.stderr

    def state(self) -> set[str]:
        return {path.name for path in (self.root / ".venv").glob("fsl-*")}


@pytest.fixture(params=[True, False], ids=["uv", "pip"])
def machine(tmp_path: Path, request: pytest.FixtureRequest) -> Machine:
    return Machine(tmp_path, uv=request.param)


def test_torch_comes_first_and_alone_then_the_pinned_rest(machine: Machine) -> None:
    status, calls, said = machine.setup()
    assert status == 0, said
    made, torch, rest = calls
    assert "venv" in made
    assert "pip install" in torch
    assert "--no-deps" in torch
    assert TORCH in torch
    assert VISION in torch
    assert f"--constraint constraints.txt {TORCH} {VISION} --editable .[lab,dev]" in rest
    assert machine.state() == {"fsl-setup.stamp"}
    config = (machine.root / ".venv" / "etc" / "ipython" / "ipython_kernel_config.py").read_text()
    assert config == start.KERNEL_CONFIG  # the same as in the offline kit


def test_a_second_call_does_nothing_until_an_input_changes(machine: Machine) -> None:
    machine.setup()
    assert machine.setup() == (0, [], "")
    for name in ("constraints.txt", "pyproject.toml"):
        with open(machine.root / name, "a") as file:
            file.write("# changed\n")
        status, calls, said = machine.setup()
        assert status == 0, said
        assert len(calls) == 2, "the environment is brought up to date, not made again"
    assert machine.setup() == (0, [], "")


def test_on_linux_torch_comes_from_the_public_cpu_index_unless_told_otherwise(machine: Machine) -> None:
    def torch_call(**env: str) -> str:
        shutil.rmtree(machine.root / ".venv", ignore_errors=True)
        status, calls, said = machine.setup(**env)
        assert status == 0, said
        assert "--index-url" not in calls[2], "the rest comes from the default index"
        return calls[1]

    assert CPU_INDEX in torch_call()
    assert "--index-url" not in torch_call(PIP_FIND_LINKS="wheels")
    assert "--index-url" not in torch_call(TORCH_INDEX="")
    assert "--index-url https://example.org/x" in torch_call(
        TORCH_INDEX="https://example.org/x", PIP_FIND_LINKS="wheels"
    )
    machine.program("uname", "#!/bin/sh\necho Darwin\n")
    assert "--index-url" not in torch_call()


def test_uv_is_told_of_pips_folder_of_wheels_and_compiles(tmp_path: Path) -> None:
    _, calls, _ = Machine(tmp_path, uv=True).setup(PIP_FIND_LINKS="my wheels")
    assert all("--find-links my wheels" in call and "--compile-bytecode" in call for call in calls[1:])


@pytest.mark.parametrize("word", ["no-deps", "editable", "health"])
def test_a_failed_first_set_up_leaves_no_stamp_and_is_started_again(machine: Machine, word: str) -> None:
    (machine.root / f"fail-{word}").touch()
    status, _, said = machine.setup()
    assert status != 0
    assert machine.state() == {"fsl-setup.unfinished"}
    assert "setup:" in said.splitlines()[-1]
    (machine.root / f"fail-{word}").unlink()
    status, calls, said = machine.setup()
    assert status == 0
    assert "did not finish" in said
    assert len(calls) == 3
    assert machine.state() == {"fsl-setup.stamp"}


def test_a_failed_update_keeps_the_environment_and_is_tried_again(machine: Machine) -> None:
    machine.setup()
    (machine.root / ".venv" / "mine").touch()
    (machine.root / "constraints.txt").write_text("tqdm==5\n")
    (machine.root / "fail-editable").touch()
    assert machine.setup()[0] != 0
    assert machine.state() == set()
    (machine.root / "fail-editable").unlink()
    status, calls, _ = machine.setup()
    assert (status, len(calls)) == (0, 2)
    assert (machine.root / ".venv" / "mine").exists()


def test_a_python_that_no_longer_starts_is_noticed(machine: Machine) -> None:
    machine.setup()
    (machine.root / ".venv" / "bin" / "python").unlink()
    status, calls, said = machine.setup()
    assert status == 0
    assert "does not start" in said
    assert len(calls) == 3


def test_without_a_fitting_python_the_message_says_what_to_do(tmp_path: Path) -> None:
    machine = Machine(tmp_path, uv=False)
    status, calls, said = machine.setup(PYTHON="no-such-python")
    assert (status, calls) == (1, [])
    assert "Python 3.11, 3.12 or 3.13 is needed" in said
    assert not (tmp_path / ".venv").exists()


def test_pip_takes_over_where_uv_cannot_make_the_environment(tmp_path: Path) -> None:
    machine = Machine(tmp_path, uv=True)
    (tmp_path / "fail---allow-existing").touch()
    status, calls, said = machine.setup()
    assert status == 0, said
    assert "uv could not make .venv: going on with pip." in said
    assert not [call for call in calls if call.startswith("uv pip")]
    assert any("-m venv" in call for call in calls)
    assert any("-m pip install" in call and TORCH in call for call in calls)
