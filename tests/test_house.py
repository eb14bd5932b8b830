"""The laws of the house: which room may import which, how large the parts may grow, and that tests mirror the tree.

The contracts on imports stand in pyproject.toml, `[tool.importlinter]`; `lint-imports` alone shows them too.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("fsl_course", "fsl_classroom", "tools")
MOST_LINES = 6500  # of fsl_course for lessons 00 to 11; 9500 once parts III and IV stand
MOST_ROOMS = MOST_MODULES = 8  # in the root of fsl_course
MOST_LINES_OF_A_FILE = 300
MOST_LINES_OF_A_FUNCTION = 60  # without its docstring
# "path:function": why it is longer
LONG_FUNCTIONS: dict[str, str] = {}
# Tests of something that is not one module of ours.
TESTS_OF_MORE = {
    
}


def sources(*folders: str) -> list[Path]:
    """The Python files below these folders of the repository."""
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def lines_of(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def test_imports_keep_the_contracts():
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[done.stdout.find("Contracts") :]
    assert "4 kept, 0 broken" in done.stdout


def test_the_root_of_the_reference_package_is_a_short_listing():
    rooms = [p.name for p in (ROOT / "fsl_course").iterdir() if p.is_dir() and any(p.glob("*.py"))]
    modules = [p.name for p in (ROOT / "fsl_course").glob("*.py")]
    assert len(rooms) <= MOST_ROOMS, rooms
    assert len(modules) <= MOST_MODULES, modules


def test_the_reference_package_stays_small():
    lines = sum(map(lines_of, sources("fsl_course")))
    assert 0 < lines <= MOST_LINES, f"fsl_course has {lines} lines: it should hold fewer ideas, not denser lines"


def test_no_file_is_long():
    """Lessons, the exercises of a lesson and data apart."""
    found = [p for p in sources(*PACKAGES, "tests") if p.parent != ROOT / "fsl_classroom" / "exercises"]
    long = {str(p.relative_to(ROOT)): lines_of(p) for p in found if lines_of(p) > MOST_LINES_OF_A_FILE}
    assert found
    assert not long


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """(name, lines without the docstring) of every function in a file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            first = node.body[0]
            documented = ast.get_docstring(node) is not None
            words = first.end_lineno - first.lineno + 1 if documented and first.end_lineno else 0
            yield node.name, (node.end_lineno or node.lineno) - node.lineno + 1 - words


def test_no_function_is_long_without_a_reason():
    long = {
        f"{path.relative_to(ROOT)}:{name}": count
        for path in sources(*PACKAGES)
        for name, count in functions(path)
        if count > MOST_LINES_OF_A_FUNCTION
    }
    assert set(long) == set(LONG_FUNCTIONS), long


def test_the_training_loop_reads_like_a_textbook():
    lengths = dict(functions(ROOT / "fsl_course" / "training" / "loop.py"))
    assert lengths["fit"] <= 60


@pytest.mark.parametrize("package", PACKAGES)
def test_tests_mirror_the_tree(package: str):
    """tests/PACKAGE/ROOM/test_NAME.py, or test_NAME_topic.py, tests PACKAGE/ROOM/NAME.py or the room NAME."""
    strangers = []
    for path in (ROOT / "tests" / package).rglob("test_*.py"):
        here = path.relative_to(ROOT).as_posix()
        folder = ROOT / path.parent.relative_to(ROOT / "tests")
        words = path.stem.removeprefix("test_").split("_")
        names = ["_".join(words[:count]) for count in range(1, len(words) + 1)]
        found = any((folder / f"{name}.py").exists() or (folder / name).is_dir() for name in names)
        if not found and here not in TESTS_OF_MORE and not any((folder / f"{name}.sh").exists() for name in names):
            strangers.append(here)
    assert not strangers


def test_importing_the_package_loads_nothing_heavy():
    """Neither PyTorch for the command line's help, nor matplotlib and SciPy for those who draw and test nothing."""
    code = (
        "import sys, fsl_course, fsl_classroom; heavy = {'torch', 'matplotlib', 'scipy'} & set(sys.modules); "
        "from fsl_course import EpisodeSampler, ImageSet, load_glyphs; import fsl_course.methods.maml; "
        "print(heavy, {'matplotlib', 'scipy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["set()", "set()"]
