from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).resolve().parents[3] / "tools" / "notebooks" / "pick.py"
NAMES = [f"{i:02d}_x" for i in range(5)]


@pytest.fixture
def course(tmp_path: Path) -> Path:
    """Five lessons with their notebooks, and a copy of the tool beside them."""
    for folder, suffix in (("lessons", "py"), ("solutions", "ipynb"), ("notebooks", "ipynb")):
        (tmp_path / folder).mkdir()
        for name in NAMES:
            (tmp_path / folder / f"{name}.{suffix}").touch()
    (tmp_path / "lessons" / "helper.py").touch()  # no number: not a lesson
    (tmp_path / "tools" / "notebooks").mkdir(parents=True)
    (tmp_path / "tools" / "notebooks" / TOOL.name).write_bytes(TOOL.read_bytes())
    return tmp_path


def picked(course: Path, *arguments: str) -> list[str]:
    tool = course / "tools" / "notebooks" / TOOL.name
    done = subprocess.run([sys.executable, tool, *arguments], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return done.stdout.split()


def test_every_solution_and_two_student_notebooks_are_picked(course: Path) -> None:
    solutions = [f"solutions/{name}.ipynb" for name in NAMES]
    assert picked(course, "0") == [*solutions, "notebooks/00_x.ipynb", "notebooks/01_x.ipynb"]
    assert picked(course, "2") == [*solutions, "notebooks/04_x.ipynb", "notebooks/00_x.ipynb"]
    assert picked(course, "all") == [*solutions, *(f"notebooks/{name}.ipynb" for name in NAMES)]
    assert len(picked(course)) == len(NAMES) + 2  # today's


@pytest.mark.parametrize("start", [0, 7, 364])
def test_a_round_of_days_reaches_every_notebook(course: Path, start: int) -> None:
    reached = {name for day in range(start, start + 3) for name in picked(course, f"{day:03d}")}
    assert reached >= {f"notebooks/{name}.ipynb" for name in NAMES}


def test_a_course_of_one_lesson_is_picked_once(course: Path) -> None:
    for path in [*course.glob("lessons/0[1-4]*"), *course.glob("*s/0[1-4]*.ipynb")]:
        path.unlink()
    assert picked(course, "9") == ["solutions/00_x.ipynb", "notebooks/00_x.ipynb"]


def test_a_missing_or_left_over_notebook_is_an_error(course: Path) -> None:
    (course / "solutions" / "03_x.ipynb").unlink()
    with pytest.raises(RuntimeError, match=r"solutions/ and lessons/ do not hold the same lessons: 03_x"):
        picked(course, "0")
    (course / "solutions" / "03_x.ipynb").touch()
    (course / "notebooks" / "09_old.ipynb").touch()
    with pytest.raises(RuntimeError, match=r"notebooks/ and lessons/ do not hold the same lessons: 09_old"):
        picked(course, "0")


def test_a_turn_that_is_no_number_is_refused(course: Path) -> None:
    with pytest.raises(RuntimeError, match="FSL_ROTATE must be a number or all; got 'some'"):
        picked(course, "some")
