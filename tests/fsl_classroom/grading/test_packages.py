"""An answer may use nothing of fsl_classroom, and of fsl_course only what its lesson imports."""

import ast
import builtins
import subprocess
import sys
from pathlib import Path

import pytest

import fsl_classroom
import fsl_course
from fsl_classroom.grading import answer_builtins, confinement, doors, guards, rules, together
from fsl_classroom.grading.slices import answers_of
from fsl_classroom.grading.submissions import Cell
from tests.fsl_classroom.grading import zoo

ROOT = Path(__file__).resolve().parents[3]


def found(line: str, before: str = "") -> str | None:
    """Returns what the rules say about a function that contains this line."""
    source = f'{zoo.IMPORTS}\n{before}\ndef f():\n    {line}\ncheck("05.1", f)'
    return rules.suspicion(answers_of([Cell(1, source, ast.parse(source))])["05.1"])


@pytest.mark.parametrize(
    "line",
    [
        "import fsl_classroom",
        "import fsl_classroom.checking.require",
        "import fsl_classroom.checking.catalogue as c",
        "from fsl_classroom.checking import judge",
        "from fsl_classroom.checking.catalogue import of_lesson",
        "from fsl_classroom.exercises.ex05_prototypical import prototypes",
        "from fsl_classroom.variants import variant",
        "from fsl_classroom.widgets import EpisodeExplorer",
        "from fsl_classroom.grading.rules import table",
        "from fsl_course.cli import terminal",
        "from fsl_course._system.files import replace_file",
    ],
)
def test_the_code_of_an_answer_imports_nothing_of_the_classroom(line):
    words = found(line) or found(f"{line}; return {line.split()[-1]}.thing")
    assert zoo.REFERENCE in words


@pytest.mark.parametrize("line", ["return judge.first_fault", "return [judge]", "return judge"])
@pytest.mark.parametrize("before", ["from fsl_classroom.checking import judge", "import fsl_classroom as judge"])
def test_what_an_earlier_cell_imports_from_the_classroom_is_refused_too(before, line):
    assert zoo.REFERENCE in found(line, before)


def test_only_whole_names_count():
    assert found("import fsl_classroom_notes, fsl_coursework; return fsl_coursework.a.__b__") is None
    assert rules.lies_in("fsl_course", "fsl_course")
    assert rules.lies_in("fsl_course.nets", "tools", "fsl_course")
    assert not rules.lies_in("fsl_coursework.nets", "tools", "fsl_course")


def test_the_table_of_allowed_imports_names_nothing_of_the_classroom():
    for lesson in rules.table().values():
        for name in lesson["imports"]:
            assert rules.lies_in(name, rules.COURSE), name
    assert rules.CLASSROOM not in Path(rules.__file__).with_name("allowed_imports.json").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "call",
    [
        ("fsl_classroom",),
        ("fsl_classroom.checking.catalogue",),
        ("fsl_classroom", None, None, ("find",)),
        ("fsl_classroom.exercises", None, None, ("ex05_prototypical",)),
        ("methods.prototypical", {"__package__": "fsl_course"}, None, ("prototypes",), 1),
        ("checking", {"__package__": "fsl_classroom"}, None, ("judge",), 1),
        ("", {"__package__": "fsl_course.methods"}, None, ("prototypical",), 1),
    ],
)
def test_the_guarded_import_refuses_what_the_rules_did_not_see(call):
    incidents = guards.Incidents()
    with pytest.raises(PermissionError, match=zoo.REFERENCE):
        answer_builtins.learner_builtins("05.1", incidents)["__import__"](*call)
    assert len(incidents.words) == 1


def test_guarded_attributes_of_a_module_of_the_classroom_are_refused():
    own = answer_builtins.learner_builtins("05.1", guards.Incidents())
    for call in (
        ("getattr", fsl_classroom, "find"),
        ("setattr", rules, "COURSE", ""),
        ("delattr", fsl_classroom, "find"),
    ):
        with pytest.raises(PermissionError):
            own[call[0]](*call[1:])


def test_nothing_in_the_course_holds_a_piece_of_the_classroom():
    """An answer may hold modules of the course, so no name in them may lead to the classroom."""
    program = """
import pkgutil, sys, importlib, contextlib, fsl_course, fsl_classroom
for package in (fsl_course, fsl_classroom):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if not module.name.endswith("__main__"):
            with contextlib.suppress(ImportError):
                importlib.import_module(module.name)
for name, module in list(sys.modules.items()):
    if name.partition(".")[0] == "fsl_course":
        for key, value in list(vars(module).items()):
            home = getattr(value, "__module__", None) or getattr(value, "__name__", "")
            if str(home).partition(".")[0] == "fsl_classroom":
                print(name, key)
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert (ran.returncode, ran.stdout) == (0, ""), ran.stderr


def test_hidden_packages_are_gone_by_whole_name_and_cannot_be_imported_again(monkeypatch):
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    neighbour = sys.modules["fsl_classroom_notes"] = type(sys)("fsl_classroom_notes")
    guards.hide(together.HIDDEN)
    assert not [name for name in sys.modules if rules.lies_in(name, "fsl_classroom", "tools", "tests")]
    assert sys.modules["fsl_classroom_notes"] is neighbour
    blocker = sys.meta_path[0]
    assert isinstance(blocker, guards._Blocker)
    for name in ("fsl_classroom", "fsl_classroom.checking.judge", "tools.benchmark", "tests", "fsl_course.__main__"):
        with pytest.raises(ModuleNotFoundError, match="not at hand"):
            blocker.find_spec(name)
    for name in ("fsl_classroom_notes", "fsl_course.nets", "toolset"):
        assert blocker.find_spec(name) is None


WATCHED = """
import importlib, sys, unittest.mock
from pathlib import Path
import fsl_course, fsl_classroom
from fsl_classroom.checking import compare
from fsl_classroom.grading import doors, guards
scratch, line = Path(sys.argv[1]), sys.argv[2]
incidents = guards.Incidents()
if len(sys.argv) > 3:  # as in an installed wheel, where the data lies in a folder of the package
    doors.DATA = fsl_course.__path__[0] + "/assets/"
guards.watch(scratch, incidents)
space = {"compare": compare, "course": fsl_course.__path__[0], "classroom": fsl_classroom.__path__[0], "scratch": sys.argv[1]}
try:
    exec(compile(line, guards.FILE + "cell 1>", "exec"), space)
except (PermissionError, FileNotFoundError):
    pass
print("|".join(incidents.words))
"""


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("open(course + '/nets.py').read()", "looks into the checker (reads nets.py)"),
        (
            "open(classroom + '/exercises/ex05_prototypical.py').read()",
            "looks into the checker (reads ex05_prototypical.py)",
        ),
        ("open(classroom + '/grading/../checking/judge.py').read()", "looks into the checker (reads judge.py)"),
        ("open(classroom + '_notes', 'w')", "changes files outside"),
        ("open(scratch + '/mine', 'w').write('x')", ""),
        (
            "import unittest.mock as m; m.patch('fsl_classroom.checking.compare.compare', None).start()",
            "imports the reference",
        ),
        ("import pkgutil; pkgutil.resolve_name('fsl_classroom.checking.catalogue:find')", "imports the reference"),
        (
            "from torch.package import sys_importer as s; s.import_module('fsl_classroom.variants')",
            "imports the reference",
        ),
        ("from torch.package import sys_importer as s; s.import_module('fsl_course.nets')", "imports the reference"),
    ],
)
def test_a_running_answer_reads_no_file_of_either_package_and_gets_none_by_a_library(tmp_path, line, words):
    """Without Landlock and without the scan of the answer's code: only the audit hook and the guarded imports protect."""
    (tmp_path / "scratch").mkdir()
    ran = subprocess.run(
        [sys.executable, "-c", WATCHED, tmp_path / "scratch", line],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=ROOT,
    )
    assert ran.returncode == 0, ran.stderr
    assert words in ran.stdout
    assert bool(ran.stdout.strip()) is bool(words)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("open(course + '/assets/glyphs.npz', 'rb')", ""),
        ("open(course + '/assets/../nets.py')", "reads nets.py"),
        ("open(course + '/assets/glyphs.npz', 'wb')", "changes files outside"),
    ],
)
def test_a_running_answer_may_read_the_data_that_a_wheel_keeps_in_the_package(tmp_path, line, words):
    command = [sys.executable, "-c", WATCHED, tmp_path, line, "wheel"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert ran.returncode == 0, ran.stderr
    assert words in ran.stdout
    assert bool(ran.stdout.strip()) is bool(words)


@pytest.mark.parametrize("layout", ["site-packages", "checkout"])
def test_neither_package_is_readable_wherever_they_lie(tmp_path, monkeypatch, layout):
    """An installed wheel has both packages beside others; a checkout has them beside lessons and tools."""
    installed = tmp_path / "site-packages"
    home = {"site-packages": installed, "checkout": tmp_path / "checkout"}[layout]
    for folder in (installed / "numpy", home / "fsl_course", home / "fsl_classroom", home / "solutions"):
        folder.mkdir(parents=True)
    monkeypatch.setattr(confinement, "_PACKAGES", [home / "fsl_classroom", home / "fsl_course"])
    monkeypatch.setattr(confinement.site, "getsitepackages", lambda: [str(installed)])
    readable = list(confinement._readable())
    assert installed / "numpy" in readable
    for package in confinement._PACKAGES:
        assert not [path for path in readable if package.is_relative_to(path)]
    if layout == "checkout":
        assert not [path for path in readable if path.is_relative_to(home)]


def test_the_packages_that_run_here_are_the_ones_that_are_shut():
    here = [str(Path(package.__path__[0]).resolve()) for package in (fsl_classroom, fsl_course)]
    assert [str(package) for package in confinement._PACKAGES] == here
    assert [folder.rstrip("/\\") for folder in doors.HERE] == here
    assert answer_builtins._plain_import is builtins.__import__
