"""The wheel: both packages, data and weights, wherever it is installed."""

from __future__ import annotations

import sys
import tomllib
import zipfile
from fnmatch import fnmatch
from pathlib import Path

import pytest

from fsl_course.data.assets import REPOSITORY_ONLY
from tests.project.project import ROOT, run

LARGEST_MB = 30


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    done = run(
        *(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"),
        *("--wheel-dir", folder, ROOT),
    )
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_carries_code_data_and_weights(wheel: Path) -> None:
    inside = set(zipfile.ZipFile(wheel).namelist())
    data = {p.relative_to(ROOT / "data").as_posix() for p in (ROOT / "data").rglob("*") if p.is_file()}
    assert {"glyphs.npz", "icons.npz", "checksums.json"} <= data
    stays = {name for name in data if any(fnmatch(name, pattern) for pattern in REPOSITORY_ONLY)}
    assert {f"fsl_course/assets/{name}" for name in data - stays} <= inside
    assert stays
    assert not {f"fsl_course/assets/{name}" for name in stays} & inside
    assert wheel.stat().st_size < LARGEST_MB * 1e6
    kinds, packages = (".py", ".js", ".json", ".toml"), ("fsl_course", "fsl_classroom")
    code = {p.relative_to(ROOT).as_posix() for name in packages for p in (ROOT / name).rglob("*") if p.suffix in kinds}
    assert code <= inside
    assert not [name for name in inside if not name.startswith(("fsl_course/", "fsl_course-", "fsl_classroom/"))]


def test_the_package_knows_what_its_wheel_leaves_out() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    excluded = settings["tool"]["hatch"]["build"]["targets"]["wheel"]["exclude"]
    assert excluded == [f"data/{pattern}" for pattern in REPOSITORY_ONLY]


FROM_ANYWHERE = """
import sys
from pathlib import Path
import fsl_classroom, fsl_course
target = Path(sys.argv[1]).resolve()
assert Path(fsl_course.__file__).resolve().is_relative_to(target), fsl_course.__file__
assert Path(fsl_classroom.__file__).resolve().is_relative_to(target), fsl_classroom.__file__
from fsl_course.data.assets import asset
assert asset("glyphs.npz").resolve().is_relative_to(target), asset("glyphs.npz")
sampler = fsl_course.EpisodeSampler(fsl_course.load_glyphs().split("test"), 5, 1, 3)
episode = sampler[0]
print(list(episode.support_x.shape))
if (asset("checksums.json").parent / "checkpoints" / "prototypical-glyphs.safetensors").exists():
    print(list(fsl_course.pretrained("prototypical", "glyphs")(episode).shape))
for name in ("relation", "siamese"):
    try:
        fsl_course.pretrained(name, "omniglot-alphabets")
    except ValueError as error:
        print(error)
from fsl_course.cli import doctor
print([words for good, words in doctor._data() if good is False])
"""


def test_the_installed_wheel_works_from_anywhere(wheel: Path, tmp_path: Path) -> None:
    target, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    done = run(
        *(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", target, wheel)
    )
    assert done.returncode == 0, done.stderr
    # The target comes before the checkout, which an editable install puts on the path; the script checks that it does.
    done = run(sys.executable, "-c", FROM_ANYWHERE, target, cwd=elsewhere, PYTHONPATH=str(target))
    assert done.returncode == 0, done.stderr
    shapes = ["[5, 1, 28, 28]"]
    if (ROOT / "data/checkpoints/prototypical-glyphs.safetensors").exists():
        shapes.append("[15, 5]")
    clone = (
        "the weights '{}-omniglot-alphabets' are not in the installed package: clone the repository, which holds them."
    )
    assert done.stdout.splitlines() == [*shapes, *map(clone.format, ("relation", "siamese")), "[]"]
