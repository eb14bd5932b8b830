"""The offline kit and its start script: what is in it, what is kept, and what is said when something is missing."""

from __future__ import annotations

import errno
import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tools.kit.test_wheels import ANY, WINDOWS, Index, write_wheel
from tools.kit import build
from tools.kit.wheels import PYTHONS, KitError, Target
from tools.notebooks.cells import lesson_files

ROOT = Path(__file__).resolve().parents[3]


def start_module():
    spec = importlib.util.spec_from_file_location("kit_start", ROOT / "tools" / "kit" / "start.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


start = start_module()


@pytest.fixture
def course(tmp_path) -> Path:
    """A project small enough to be put into a kit in no time."""
    root = tmp_path / "project"
    for name in ("notebooks/00_start.ipynb", "solutions/00_start.ipynb", "data/glyphs.md", "lessons/GLOSSARY.md"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    for name in (
        "lessons/NOTATION.md",
        "docs/episode.png",
        "docs/diagrams/loops.svg",
        "docs/install.md",
        "docs/commands.md",
        "docs/own-pictures.md",
        "book/path.md",
        "README.md",
        "LICENSE",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    (root / "constraints.txt").write_text("click==8.0\n")
    (root / "tools" / "setup").mkdir(parents=True)
    (root / "tools" / "setup" / "env.sh").write_text("TORCH_VERSION=2.13.0\nTORCHVISION_VERSION=0.28.0 # with it\n")
    (root / "tools" / "kit").symlink_to(ROOT / "tools" / "kit")
    return root


def own_wheel(root: Path, folder: Path) -> None:
    write_wheel(folder, "fsl_course-0.1.0-py3-none-any.whl", ('click; extra == "lab"', "torch"))


def make(root: Path, out: Path, *more: str, pip: Index | None = None) -> int:
    pip = pip or Index(click=(ANY, ()), torch=("LINUX", ()))
    arguments = ["--out", str(out), "--systems", "linux_x86_64", "--python", "3.11", *more]
    return build.main(arguments, root, pip, own_wheel)


def test_a_kit_carries_whatever_a_lesson_links_to():
    carried = (*build.COURSE, "solutions")
    for lesson in lesson_files(ROOT):
        for target in re.findall(r"\]\(\.\./([^)#\" ]+)", lesson.read_text(encoding="utf-8")):
            assert any(f"{target}/".startswith(f"{name}/") for name in carried), (
                f"{lesson.name}: {target} is not in the kit"
            )


def test_a_kit_is_whole(course, tmp_path, capsys):
    out = tmp_path / "kit"
    assert make(course, out) == 0
    assert "without the book" in capsys.readouterr().out
    lines = (out / "wheels" / "linux_x86_64-py3.11.txt").read_text().split()
    torch = "./torch-2.13.0+cpu-cp311-cp311-manylinux_2_28_x86_64.whl"
    assert lines == ["./click-8.0-py3-none-any.whl", "./fsl_course-0.1.0-py3-none-any.whl", torch]
    assert (out / "course" / "solutions" / "00_start.ipynb").is_file()
    readme = (out / "README-KIT.md").read_text()
    assert "linux_x86_64-py3.11" in readme
    assert "{" not in readme
    batch = (out / "start.bat").read_bytes()
    assert batch.count(b"\n") == batch.count(b"\r\n") > 5
    assert start.verify(out, out / "wheels" / "linux_x86_64-py3.11.txt") == len(
        (out / "SHA256SUMS").read_text().splitlines()
    )


def test_solutions_can_stay_out_and_the_book_comes_where_it_was_built(course, tmp_path):
    (course / "build" / "book").mkdir(parents=True)
    out = tmp_path / "kit"
    assert make(course, out) == 0
    assert not (out / "book").exists()  # half a book is none
    (course / "build" / "book" / "index.html").write_text("book")
    assert make(course, out, "--without-solutions") == 0
    assert not (out / "course" / "solutions").exists()
    assert (out / "book" / "index.html").read_text() == "book"
    assert "left out of this kit" in (out / "README-KIT.md").read_text()


def test_a_system_without_torch_is_left_out_and_named(course, tmp_path, capsys):
    out = tmp_path / "kit"
    pip = Index(click=(ANY, ()), torch=("LINUX", ()))
    assert make(course, out, "--systems", "linux_x86_64", "macos_x86_64", pip=pip) == 0
    assert "macos_x86_64-py3.11" in capsys.readouterr().out
    assert "macos_x86_64-py3.11" in (out / "README-KIT.md").read_text()
    assert not (out / "wheels" / "macos_x86_64-py3.11.txt").exists()


def test_no_network_is_said_and_no_finished_mark_is_left(course, tmp_path, capsys):
    def offline(target: Target, specs: list[str], folder: Path) -> None:
        raise KitError("the package index was not reached: no network?")

    out = tmp_path / "kit"
    assert make(course, out) == 0
    assert (out / "KIT-COMPLETE").is_file()
    (out / "wheels" / "click-8.0-py3-none-any.whl").unlink()
    assert make(course, out, pip=offline) == 1
    assert "no network" in capsys.readouterr().err
    assert not (out / "KIT-COMPLETE").exists()
    assert list((out / "wheels").glob("torch-*"))  # what is here is kept
    with pytest.raises(start.Stop, match="never finished"):
        start.verify(out, out / "wheels" / "any.txt")


def test_a_folder_of_somebody_elses_is_left_alone(course, tmp_path, capsys):
    out = tmp_path / "stick"
    (out / "course").mkdir(parents=True)
    (out / "course" / "marks.txt").write_text("not yours")
    assert make(course, out) == 1
    assert "holds something that is no kit" in capsys.readouterr().err
    assert [path.name for path in out.rglob("*")] == ["course", "marks.txt"]


def test_half_a_kit_is_gone_on_with(course, tmp_path):
    def broken(target: Target, specs: list[str], folder: Path) -> None:
        raise KitError("the package index was not reached")

    out = tmp_path / "kit"
    assert make(course, out, pip=broken) == 1
    assert (out / "KIT-UNFINISHED").is_file()
    assert make(course, out) == 0
    assert not (out / "KIT-UNFINISHED").exists()
    assert "KIT" not in (out / "SHA256SUMS").read_text().replace("README-KIT.md", "")


def test_a_full_disk_is_said(course, tmp_path, capsys, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(build, "copy_course", full)
    assert make(course, tmp_path / "kit") == 1
    assert "the disk is full" in capsys.readouterr().err
    monkeypatch.setattr(build, "ROOM", 10**18)
    assert make(course, tmp_path / "other") == 1
    assert "GB are needed" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------ start.py


@pytest.fixture
def finished(course, tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(start, "SYSTEM", "linux")
    monkeypatch.setattr(start, "MACHINE", "x86_64")
    monkeypatch.setattr(start.sys, "version_info", (3, 11, 0))
    out = tmp_path / "kit"
    assert make(course, out) == 0
    return out


def test_a_damaged_and_a_missing_file_are_named(finished):
    wheels = start.wheel_list(finished)
    (finished / "course" / "README.md").write_text("changed")
    with pytest.raises(start.Stop, match=r"course/README\.md is damaged"):
        start.verify(finished, wheels)
    (finished / "course" / "README.md").unlink()
    with pytest.raises(start.Stop, match=r"course/README\.md is missing"):
        start.verify(finished, wheels)


def test_another_python_is_told_what_the_kit_has(finished, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(start.sys, "version_info", (3, 9, 1))
    assert start.main(["--to", str(tmp_path / "home")], finished) == 1
    said = capsys.readouterr().err
    assert "linux_x86_64-py3.9" in said
    assert "It has: linux_x86_64-py3.11" in said
    assert not (tmp_path / "home").exists()


def test_a_python_of_32_bits_is_refused(finished, monkeypatch):
    monkeypatch.setattr(start.sys, "maxsize", 2**31 - 1)
    with pytest.raises(start.Stop, match="64-bit"):
        start.wheel_list(finished)


def test_start_installs_once_and_never_overwrites_a_notebook(finished, monkeypatch, capsys, tmp_path):
    home, calls = tmp_path / "home", []

    class Done:
        returncode = 0

    def run(command: list[str], **options: object) -> Done:
        calls.append(command)
        if command[1:3] == ["-m", "venv"]:
            start.python_in(home).parent.mkdir(parents=True)
            start.python_in(home).write_text("python")
        return Done()

    monkeypatch.setattr(start.subprocess, "run", run)
    assert start.main(["--to", str(home), "--no-browser"], finished) == 0
    install, lab = calls[1], calls[2]
    assert install[1:8] == ["-m", "pip", "--isolated", "install", "--no-index", "--find-links", "."]
    assert install[-1] == "linux_x86_64-py3.11.txt"
    assert lab[1:3] == ["-m", "jupyterlab"]
    assert lab[-1] == "--no-browser"
    (home / "notebooks" / "00_start.ipynb").write_text("my work")
    (home / "data" / "glyphs.md").write_text("old card")
    calls.clear()
    assert start.main(["--to", str(home)], finished) == 0
    assert len(calls) == 1  # no second installation
    assert (home / "notebooks" / "00_start.ipynb").read_text() == "my work"
    assert (home / "data" / "glyphs.md").read_text() == "data/glyphs.md"
    config = home / ".venv" / "etc" / "ipython" / "ipython_kernel_config.py"
    assert "from fsl_course._system import threads\n\nthreads.prepare()\n" in config.read_text()
    assert "your own versions stay as they are: 00_start.ipynb" in capsys.readouterr().out


@pytest.mark.parametrize(("system", "status"), [("here", 0), ("elsewhere", 1)])
def test_the_shell_script_finds_a_python_that_the_kit_serves(tmp_path, system, status):
    kit_folder = tmp_path / "a stick (1)"
    (kit_folder / "wheels").mkdir(parents=True)
    name = {"here": "macos" if sys.platform == "darwin" else "linux", "elsewhere": "windows"}[system]
    (kit_folder / "wheels" / "{}_any-py{}.{}.txt".format(name, *sys.version_info[:2])).touch()
    shutil.copy(ROOT / "tools" / "kit" / "start.sh", kit_folder)
    (kit_folder / "start.py").write_text("import sys; print(sys.version_info[:2], sys.argv[1:])")
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    command = ["bash", str(kit_folder / "start.sh"), "--to", "my folder"]
    done = subprocess.run(command, env={"PATH": path}, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == status
    if system == "here":
        assert done.stdout == f"{tuple(sys.version_info[:2])} ['--to', 'my folder']\n"
    else:
        assert "no fitting Python" in done.stderr
        assert "windows_any" in done.stderr


def test_the_batch_file_looks_for_the_lists_that_the_kit_writes():
    batch = (ROOT / "tools" / "kit" / "start.bat").read_text(encoding="ascii")
    assert r"wheels\windows_amd64-py%%V.txt" in batch
    assert f"windows_amd64-py{WINDOWS.python}" == str(WINDOWS)
    assert set(PYTHONS) == set(re.search(r"in \(([\d. ]+)\) do", batch)[1].split())
    labels = set(re.findall(r"^:(\w+)", batch, re.M))
    assert set(re.findall(r"goto (\w+)", batch)) <= labels
    # From "no Python" to the end there is a pause: a double-clicked window would close over the words.
    ending = batch.partition("start: no Python")[2]
    assert ending.index("goto end") < ending.index(":end") < ending.index("pause")
    assert 'set "CODE=1"' in batch.partition("for %%V")[0]
