"""Which wheels the offline kit asks for on each system, with a stand-in for pip, and what it says when one is missing."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tools.kit import wheels
from tools.kit.wheels import KitError, Target, Unavailable, collect, explained, pins_of

ROOT = Path(__file__).resolve().parents[3]
LINUX, WINDOWS = Target("linux_x86_64", "3.11"), Target("windows_amd64", "3.12")


def write_wheel(folder: Path, filename: str, requires: tuple[str, ...] = ()) -> Path:
    """A wheel with nothing but metadata."""
    name, version = filename.split("-")[:2]
    lines = [
        "Metadata-Version: 2.1",
        f"Name: {name}",
        f"Version: {version}",
        *(f"Requires-Dist: {r}" for r in requires),
    ]
    path = folder / filename
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}-{version}.dist-info/METADATA", "\n".join(lines) + "\n")
    return path


class Index:
    """Plays pip: name -> (tag, dependencies). Remembers what was asked; a package that it lacks is unavailable."""

    def __init__(self, **packages: tuple[str, tuple[str, ...]]) -> None:
        self.packages, self.asked = packages, []

    def __call__(self, target: Target, specs: list[str], folder: Path) -> None:
        self.asked.append((str(target), specs))
        for spec in specs:
            name, version = spec.split("==")
            if name not in self.packages:
                raise Unavailable(f"{spec} has no wheel for {target}.")
            tag, requires = self.packages[name]
            local = "+cpu" if name == "torch" else ""
            own = tag.replace("LINUX", "cp311-cp311-manylinux_2_28_x86_64").replace("WIN", "cp312-cp312-win_amd64")
            if "|" in own:
                own = own.split("|")[target == WINDOWS]
            write_wheel(folder, f"{name}-{version}{local}-{own}.whl", requires)


PINS = {"course": "1.0", "torch": "2.13.0", "click": "8.0", "colorama": "0.4", "lab": "4.0"}
NEEDS = ("torch>=2", "click", 'lab; extra == "lab"', 'never; python_version < "3"')
ANY = "py3-none-any"


def index() -> Index:
    click = (ANY, ('colorama; sys_platform == "win32"',))
    return Index(course=(ANY, NEEDS), torch=("LINUX|WIN", ()), click=click, colorama=(ANY, ()), lab=(ANY, ("course",)))


@pytest.mark.parametrize(("target", "more"), [(LINUX, set()), (WINDOWS, {"colorama-0.4-py3-none-any.whl"})])
def test_dependencies_follow_the_markers_of_the_target_not_of_this_machine(tmp_path, target, more):
    wheels = {path.name for path in collect(target, Requirement("course[lab]"), PINS, tmp_path, index())}
    tag = "cp311-cp311-manylinux_2_28_x86_64" if target == LINUX else "cp312-cp312-win_amd64"
    common = {"course-1.0-py3-none-any.whl", "click-8.0-py3-none-any.whl", "lab-4.0-py3-none-any.whl"}
    assert wheels == common | more | {f"torch-2.13.0+cpu-{tag}.whl"}


def test_extras_that_are_not_asked_for_are_left_out(tmp_path):
    assert not any("lab" in path.name for path in collect(LINUX, Requirement("course"), PINS, tmp_path, index()))


def test_a_second_call_downloads_nothing_and_a_lost_wheel_alone(tmp_path):
    pip = index()
    first = collect(LINUX, Requirement("course[lab]"), PINS, tmp_path, pip)
    assert pip.asked[1] == ("linux_x86_64-py3.11", ["torch==2.13.0"])  # torch by itself: it has an index of its own
    pip.asked.clear()
    assert collect(LINUX, Requirement("course[lab]"), PINS, tmp_path, pip) == first
    assert pip.asked == []
    (tmp_path / "click-8.0-py3-none-any.whl").unlink()
    collect(LINUX, Requirement("course[lab]"), PINS, tmp_path, pip)
    assert pip.asked == [("linux_x86_64-py3.11", ["click==8.0"])]


def test_an_interrupted_download_leaves_no_half_wheel(tmp_path):
    def breaks(target: Target, specs: list[str], folder: Path) -> None:
        (folder / "course-1.0-py3-none-any.whl").write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        collect(LINUX, Requirement("course"), PINS, tmp_path, breaks)
    assert list(tmp_path.iterdir()) == []


def test_a_package_that_is_not_pinned_is_named(tmp_path):
    pip = Index(course=(ANY, ("nvidia-cublas",)))
    with pytest.raises(Unavailable, match=r"nvidia-cublas .* not pinned .* CUDA build"):
        collect(LINUX, Requirement("course"), {"course": "1.0"}, tmp_path, pip)


@pytest.mark.parametrize(
    ("pip_says", "kind", "words"),
    [
        ("OSError: [Errno 28] No space left on device", KitError, "the disk is full"),
        (
            "Failed to establish a new connection\nERROR: No matching distribution found for x==1",
            KitError,
            "no network",
        ),
        ("ERROR: No matching distribution found for torch==2.13.0", Unavailable, "torch==2.13.0 has no wheel"),
        ("(from versions: none)\nERROR: No matching distribution found for x==1", Unavailable, "was not reached"),
        (
            "WARNING: Retrying after connection broken by X\nNo matching distribution found for x",
            KitError,
            "no network",
        ),
        ("ERROR: something new", KitError, "something new"),
    ],
)
def test_what_pip_says_becomes_clear_words(pip_says, kind, words):
    found = explained(pip_says, LINUX)
    assert type(found) is kind
    assert words in str(found)


def test_the_pins_of_the_project_cover_torch_and_the_lab():
    pins = pins_of(ROOT)
    assert {"torch", "torchvision", "jupyterlab", "numpy"} <= set(pins)
    assert all(version[0].isdigit() for version in pins.values())


def test_tags_of_the_targets():
    assert any(tag.platform == "manylinux2014_x86_64" for tag in LINUX.tags)
    assert {tag.platform for tag in WINDOWS.tags} == {"win_amd64", "any"}
    assert any(tag.platform == "macosx_11_0_arm64" for tag in Target("macos_arm64", "3.11").tags)
    assert WINDOWS.markers["sys_platform"] == "win32"
    assert set(wheels.SYSTEMS) >= {LINUX.system, WINDOWS.system}
