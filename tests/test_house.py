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
# of fsl_course: 6,500 for lessons 00 to 11, then own pictures, part III, and part IV, which brings three new kinds of task
# (scenes, sentences, worlds) and the room trust
MOST_LINES = 10_800
MOST_ROOMS = MOST_MODULES = 8  # in the root of fsl_course, without _system, which holds no idea of the course
MOST_LINES_OF_A_FILE = 300
MOST_LINES_OF_A_FUNCTION = 60  # without its docstring
# "path:function": why it is longer
LONG_FUNCTIONS: dict[str, str] = {}


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
    rooms = [p.name for p in (ROOT / "fsl_course").iterdir() if p.name != "_system" and any(p.glob("*.py"))]
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
    """Every folder of tests stands for a folder of the tree, and every room has its tests."""
    tests = ROOT / "tests" / package
    folders = {path.parent.relative_to(tests) for path in tests.rglob("test_*.py")}
    assert not [folder for folder in folders if not (ROOT / package / folder).is_dir()]
    rooms = {path.parent.relative_to(ROOT / package).parts[:1] for path in sources(package)}
    rooms = {room[0] for room in rooms if room}
    assert not [
        room for room in rooms if not any(tests.rglob(f"{room}/test_*.py")) and not any(tests.glob(f"test_{room}.py"))
    ]


def test_a_method_has_one_name():
    methods = [path.stem for path in (ROOT / "fsl_course" / "methods").glob("[!_]*.py")]
    assert methods
    assert not [name for name in methods if not any((ROOT / "tests/fsl_course/methods").glob(f"test_{name}*.py"))]


def test_importing_the_package_loads_nothing_heavy():
    """Neither PyTorch for the command line's help, nor matplotlib and SciPy for those who draw and test nothing."""
    code = (
        "import sys, fsl_course, fsl_classroom; heavy = {'torch', 'matplotlib', 'scipy'} & set(sys.modules); "
        "from fsl_course import EpisodeSampler, ImageSet, load_glyphs; import fsl_course.methods.maml; "
        "print(heavy, {'matplotlib', 'scipy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["set()", "set()"]
