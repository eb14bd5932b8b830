"""What a stranger's machine needs: pins, Binder's environment, the wheel, CI's script, and no trace of any one machine."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[3]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
TO_PYPI = {"pytorch-cpu": "torch", "matplotlib-base": "matplotlib"}  # where conda-forge and PyPI differ in the name


def requirements(*extras: str) -> dict[str, Requirement]:
    """The package's own requirements and those of these extras, by name; extras that an extra asks for are followed."""
    found = {canonicalize_name(r.name): r for r in map(Requirement, PROJECT["dependencies"])}
    for extra in extras:
        asked = {canonicalize_name(r.name): r for r in map(Requirement, PROJECT["optional-dependencies"][extra])}
        own = asked.pop(PROJECT["name"], None)
        found |= (requirements(*sorted(own.extras)) if own else {}) | asked
    return found


def pins() -> list[tuple[str, str]]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return [tuple(line.split("==")) for line in lines if line and not line.startswith("#")]


def environment() -> dict[str, Requirement]:
    """environment.yml's packages under their PyPI names; python and pip are conda's own."""
    listed = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))["dependencies"]
    assert all(isinstance(line, str) for line in listed), "a pip section switches off Binder's cache; use postBuild"
    found = {}
    for line in listed:
        name, specifier = re.fullmatch(r"([a-z0-9-]+)(.*)", line).groups()
        if name not in ("python", "pip"):
            found[TO_PYPI.get(name, name)] = Requirement(TO_PYPI.get(name, name) + specifier)
    return found


def run(*command: object, cwd: Path = ROOT, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command], cwd=cwd, env=os.environ | env, capture_output=True, text=True, timeout=300
    )


# --- pins ---------------------------------------------------------------------------------------------------------


def test_constraints_pin_every_direct_dependency_once_within_its_bounds() -> None:
    names = [canonicalize_name(name) for name, _ in pins()]
    assert len(names) == len(set(names)) > 100
    versions = dict(zip(names, (version for _, version in pins()), strict=True))
    for name, requirement in requirements("lab", "dev").items():
        if name not in ("torch", "torchvision"):
            assert requirement.specifier.contains(versions[name]), f"{name}=={versions[name]} is not {requirement}"


def test_constraints_leave_torch_to_the_setup_script() -> None:
    brought_by_cuda = re.compile(r"torch(vision|audio)?$|triton|cuda|nvidia")
    assert not [name for name, _ in pins() if brought_by_cuda.match(name)]
    assert all(re.fullmatch(r"[0-9][0-9a-z.]*", version) for _, version in pins()), "a local or a loose version"
    pinned = re.findall(r"^TORCH_VERSION=(.+)$", (ROOT / "tools/setup/env.sh").read_text(encoding="utf-8"), re.M)
    assert len(pinned) == 1
    assert requirements()["torch"].specifier.contains(pinned[0])
    vision = re.findall(r"^TORCHVISION_VERSION=(\S+)", (ROOT / "tools/setup/env.sh").read_text(encoding="utf-8"), re.M)
    assert len(vision) == 1
    assert requirements("photos")["torchvision"].specifier.contains(vision[0])


# --- Binder and conda ---------------------------------------------------------------------------------------------


def test_environment_yml_asks_for_what_pyproject_asks_for() -> None:
    assert {n: r.specifier for n, r in environment().items()} == {
        n: r.specifier for n, r in requirements("lab").items()
    }


def test_binder_files_lie_at_the_root_and_install_only_the_course_itself() -> None:
    assert not (ROOT / "binder").exists(), "a binder/ folder makes Binder ignore the files at the root"
    assert not (ROOT / ".binder").exists()
    text = (ROOT / "environment.yml").read_text(encoding="utf-8")
    assert "- python=3.11\n" in text, "a range such as >=3.11 silently becomes 3.10 on Binder"
    assert os.access(ROOT / "postBuild", os.X_OK)
    commands = [
        line
        for line in (ROOT / "postBuild").read_text(encoding="utf-8").splitlines()
        if line and not line.startswith(("#", "set "))
    ]
    assert commands == ["pip install --no-deps -e ."]


def test_repo2docker_reads_environment_yml_and_post_build() -> None:
    done = run(
        sys.executable, "-m", "repo2docker", "--no-build", "--debug", "--user-id", 1000, "--user-name", "jovyan", "."
    )
    assert done.returncode == 0, done.stderr
    assert "Building conda environment for python=3.11" in done.stdout + done.stderr
    assert re.search(r'env update -p \S+ --file "environment.yml"', done.stdout)
    assert "RUN ./postBuild" in done.stdout


def test_the_names_in_environment_yml_exist_and_fit_together(tmp_path: Path) -> None:
    """conda cannot be asked here, so the same names and bounds are resolved under their PyPI names. Installs nothing."""

    def resolve(*wanted: str) -> subprocess.CompletedProcess[str]:
        return run(
            *(sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet"),
            *("--only-binary", ":all:", "--report", tmp_path / "report.json", "--retries", "0", "--timeout", "30"),
            *wanted,
        )

    if resolve("--no-deps", "tqdm").returncode != 0:
        pytest.skip("no package index can be reached: the names of environment.yml were not resolved")
    names = {name: requirement for name, requirement in environment().items() if name != "torch"}
    done = resolve(*map(str, names.values()))
    assert done.returncode == 0, done.stderr
    found = {
        canonicalize_name(item["metadata"]["name"]): item["metadata"]["version"]
        for item in json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["install"]
    }
    assert all(requirement.specifier.contains(found[name]) for name, requirement in names.items())


# --- the wheel ----------------------------------------------------------------------------------------------------


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
    assert {f"fsl_course/assets/{name}" for name in data} <= inside
    kinds = (".py", ".js", ".json")
    code = {p.relative_to(ROOT).as_posix() for p in (ROOT / "fsl_course").rglob("*") if p.suffix in kinds}
    assert code <= inside
    assert not [name for name in inside if not name.startswith(("fsl_course/", "fsl_course-"))]


FROM_ANYWHERE = """
import sys
from pathlib import Path
import fsl_course
target = Path(sys.argv[1]).resolve()
assert Path(fsl_course.__file__).resolve().is_relative_to(target), fsl_course.__file__
from fsl_course.data.assets import asset
assert asset("glyphs.npz").resolve().is_relative_to(target), asset("glyphs.npz")
sampler = fsl_course.EpisodeSampler(fsl_course.load_glyphs().split("test"), 5, 1, 3)
episode = sampler[0]
print(list(episode.support_x.shape))
if (asset("checksums.json").parent / "checkpoints" / "prototypical-glyphs.safetensors").exists():
    print(list(fsl_course.pretrained("prototypical", "glyphs")(episode).shape))
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
    assert done.stdout.splitlines() == shapes


# --- make and CI --------------------------------------------------------------------------------------------------


def test_make_help_lists_every_target() -> None:
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.M))
    assert {"env", "lab", "test", "notebooks", "lint", "clean", "help"} <= targets
    listed = re.findall(r"^  make ([a-z-]+) +\S", run("make", "help").stdout, re.M)
    assert set(listed) == targets
    assert set(re.search(r"^\.PHONY: (.+)$", makefile, re.M)[1].split()) == targets


@pytest.mark.parametrize("omniglot", [True, False])
def test_ci_calls_make_test_and_finds_omniglot_beside_the_repository(tmp_path: Path, omniglot: bool) -> None:
    assert os.access(ROOT / ".ci/run", os.X_OK)
    repository, tools = tmp_path / "repository", tmp_path / "tools"
    (repository / ".ci").mkdir(parents=True)
    shutil.copy(ROOT / ".ci/run", repository / ".ci/run")
    tools.mkdir()
    (tools / "make").write_text('#!/bin/sh\necho "$*|$PWD|$FSL_DATA"\nexit 3\n')
    (tools / "make").chmod(0o755)
    data = tmp_path / "shared" / "omniglot"
    if omniglot:
        data.mkdir(parents=True)
    done = run(
        "bash",
        "repository/.ci/run",
        cwd=tmp_path,
        PATH=f"{tools}:{os.environ['PATH']}",
        FSL_DATA="" if omniglot else "x",
    )
    assert done.stdout.strip() == f"test|{repository}|{data if omniglot else 'x'}", done.stderr
    assert done.returncode == 3, "a failing make must fail CI"


# --- texts --------------------------------------------------------------------------------------------------------


def project_files() -> list[Path]:
    """Every file that is or would be committed."""
    done = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    if done.returncode != 0:
        pytest.skip(f"git does not know this folder as a repository: {done.stderr.strip()}")
    return [ROOT / name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]


# Written backwards, so that this file does not find itself.
FOLDERS = "krow toor tpo pmt emoh"[::-1].split()
HOSTS = "gro.ipyp gro.detsohnohtyp sj.mpn.yrtsiger gro.sjmpn gro.naibed.bed"[::-1].split()
# A folder counts at the start of a path only: not in ../x/, not in an address, not by chance inside a base64 picture.
TRACE = re.compile(rf"(?:(?<![\w+/.$}}}}-])|(?<=file://))/(?:{'|'.join(FOLDERS)})/|{'|'.join(map(re.escape, HOSTS))}")


def test_the_trace_pattern_finds_what_it_should() -> None:
    for folder in FOLDERS:
        for line in (f'File "/{folder}/x.py"', f"file:///{folder}/x", f"/{folder}/x"):
            assert TRACE.search(line), line
        for line in (f"../{folder}/x", f"example.org/{folder}/x", f"$PWD/{folder}/x", f"iVBORw0KG/{folder}/AAAA"):
            assert not TRACE.search(line), line
    assert all(TRACE.search(f"https://{host}/simple") for host in HOSTS)


def test_no_file_names_a_machine_or_a_registry() -> None:
    found = []
    for path in project_files():
        try:
            text = path.read_bytes().decode("utf-8")
        except UnicodeDecodeError:
            continue  # pictures, arrays, weights
        found += [f"{path.relative_to(ROOT)}: {hit[0]}" for hit in TRACE.finditer(text)]
    assert not found


def test_citation_agrees_with_pyproject() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    course = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["fsl_course"]
    assert Version(str(citation["version"])) == Version(PROJECT["version"])
    assert citation["license"] == PROJECT["license"]
    assert citation["repository-code"] == course["repository"]
    assert citation["keywords"] == PROJECT["keywords"]
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()


# --- VS Code, Colab, Binder -------------------------------------------------------------------------------------------


def test_vs_code_finds_the_environment_and_runs_notebooks_in_their_folder() -> None:
    settings = json.loads((ROOT / ".vscode" / "settings.json").read_text(encoding="utf-8"))
    assert settings["python.defaultInterpreterPath"] == "${workspaceFolder}/.venv/bin/python"
    assert settings["jupyter.notebookFileRoot"] == "${fileDirname}"  # where the links and files of a lesson start
    wanted = json.loads((ROOT / ".vscode" / "extensions.json").read_text(encoding="utf-8"))["recommendations"]
    assert {"ms-python.python", "ms-toolsai.jupyter"} <= set(wanted)


def test_colab_installs_the_package_in_one_line_and_keeps_its_own_torch() -> None:
    cells = json.loads((ROOT / "notebooks" / "00_start.ipynb").read_text(encoding="utf-8"))["cells"]
    source = next("".join(cell["source"]) for cell in cells if cell["id"] == "00-colab")
    (line,) = re.findall(r"install -q \"(.+)\"'", source)
    requirement = Requirement(line)
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["fsl_course"]
    assert requirement.url == f"git+{settings['repository']}@{settings['branch']}"
    asked = requirements(*requirement.extras)
    assert {"torch", "anywidget", "ipywidgets"} <= set(asked)
    # Colab's own versions when this was written; a bound above one of them would install it anew, and torch is gigabytes.
    assert asked["torch"].specifier.contains("2.8.0")
    assert asked["ipywidgets"].specifier.contains("7.7.1")


def test_every_lesson_fits_into_a_binder_session() -> None:
    times = json.loads((ROOT / "data" / "lesson_times.json").read_text(encoding="utf-8"))
    assert {name: entry["peak_mb"] for name, entry in times.items() if entry["peak_mb"] > 1500} == {}
