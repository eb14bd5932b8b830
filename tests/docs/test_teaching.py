"""The teaching material: minutes add up, nobody sits too long, numbers are those of the solved notebooks."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from fsl_classroom.checking.catalogue import all_exercises
from tools.classroom.quiz import draw, load
from tools.notebooks.parts import part_of

ROOT = Path(__file__).resolve().parents[2]
TEACHING = ROOT / "docs" / "teaching"
LESSONS = {path.stem[:2]: path for path in sorted((ROOT / "lessons").glob("[0-9][0-9]_*.py"))}
PAGES = sorted(TEACHING.rglob("*.md"))
MOST_MINUTES = 90  # without a break
Row = list[str]


def tables(text: str) -> list[list[Row]]:
    """Every table of a Markdown text as rows of cells, the header first, the rule of dashes left out."""
    found, current = [], []
    for line in [*text.splitlines(), ""]:
        if line.startswith("|"):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            if not all(re.fullmatch(r":?-+:?", cell) for cell in cells):
                current.append(cells)
        elif current:
            found.append(current)
            current = []
    return found


def guide() -> dict[str, str]:
    """Lesson number -> its section of the guide."""
    pages = [TEACHING / f"guide_{part}.md" for part in ("start", "metric", "meta", "beyond", "elsewhere")]
    text = "\n".join(path.read_text(encoding="utf-8") for path in pages)
    parts = re.split(r"^## Lesson (\d\d)", text, flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


GUIDE = guide()


# ------------------------------------------------------------------------------------------------ the guide


def test_the_guide_covers_every_lesson_once_and_in_order():
    assert list(GUIDE) == list(LESSONS)


@pytest.mark.parametrize("lesson", LESSONS)
def test_planned_minutes_agree_with_the_lesson_and_with_the_timetable(lesson):
    planned = int(re.search(r"Planned time: (\d+) minutes", LESSONS[lesson].read_text(encoding="utf-8"))[1])
    assert int(re.search(r"\((\d+) minutes\)", GUIDE[lesson])[1]) == planned
    plan = next(table for table in tables(GUIDE[lesson]) if table[0] == ["minutes", "what"])
    assert sum(int(row[0]) for row in plan[1:]) == planned <= MOST_MINUTES


@pytest.mark.parametrize("lesson", LESSONS)
def test_each_lesson_says_what_a_teacher_needs(lesson):
    for part in ("**Goals.**", "**Goes wrong.**", "**Expected answers.**", "**Discuss.**", "Printed: `"):
        assert part in GUIDE[lesson], part
    mistakes = next(table for table in tables(GUIDE[lesson]) if table[0][0] == "exercise")
    assert len(mistakes) > 4
    assert all(row[0].startswith(lesson) for row in mistakes[1:])


@pytest.mark.parametrize("lesson", LESSONS)
def test_printed_numbers_stand_in_the_outputs_of_the_solved_notebook(lesson):
    notebook = json.loads((ROOT / "solutions" / f"{LESSONS[lesson].stem}.ipynb").read_text(encoding="utf-8"))
    streams = [o for cell in notebook["cells"] for o in cell.get("outputs", []) if o["output_type"] == "stream"]
    printed = "".join("".join(output["text"]) for output in streams)
    quoted = [
        q for line in GUIDE[lesson].splitlines() if line.startswith("Printed: ") for q in re.findall("`(.+?)`", line)
    ]
    assert len(quoted) >= 3
    assert [quote for quote in quoted if quote not in printed] == []


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.name)
def test_exercises_that_are_named_exist_and_links_lead_somewhere(path):
    text = path.read_text(encoding="utf-8")
    known = {exercise.id for exercise in all_exercises()}
    if path.parent == TEACHING:
        named = set(re.findall(r"(?<![\d.:])((?:0\d|1[01])\.\d)(?![\d])", text))
        assert named <= known, named - known
    for target in re.findall(r"\]\(([^)#]+)", text):
        assert (path.parent / target).exists(), target


# ------------------------------------------------------------------------------------------------ the plans


def clock(text: str) -> int:
    hours, minutes = text.split(":")
    return 60 * int(hours) + int(minutes)


def timetables() -> dict[str, list[Row]]:
    text = (TEACHING / "plans.md").read_text(encoding="utf-8")
    found = {}
    for section in re.split(r"^## ", text, flags=re.M)[1:]:
        for table in tables(section):
            if table[0] == ["start", "minutes", "what"]:
                found[section.splitlines()[0]] = table[1:]
    return found


@pytest.mark.parametrize(("plan", "total"), [("Two hours", 120), ("One day", 480), ("Ten weeks", 110)])
def test_a_plan_adds_up_and_nobody_sits_longer_than_90_minutes(plan, total):
    rows = timetables()[plan]
    sitting = 0
    for (start, minutes, what), following in zip(rows, [*rows[1:], None], strict=True):
        sitting = 0 if what == "break" else sitting + int(minutes)
        assert sitting <= MOST_MINUTES, f"{start}: {sitting} minutes without a break"
        if following:
            assert clock(start) + int(minutes) == clock(following[0]), start
    assert clock(rows[-1][0]) + int(rows[-1][1]) - clock(rows[0][0]) == total


def test_the_questions_of_the_two_hours_need_no_calculator():
    text = (TEACHING / "plans.md").read_text(encoding="utf-8")
    lessons, count, seed = re.search(
        r"tools\.classroom\.quiz --lessons ([\d ]+) --questions (\d+) --seed (\d+)", text
    ).groups()
    questions = draw([q for q in load() if q.lesson in lessons.split()], int(count), int(seed))
    assert {q.lesson for q in questions} == set(lessons.split())
    assert all(q.options for q in questions)  # a multiple choice each: hands can be raised


def test_the_ten_weeks_meet_every_lesson():
    text = (TEACHING / "plans.md").read_text(encoding="utf-8")
    weeks = next(table for table in tables(text) if table[0][0] == "week")[1:]
    assert [int(row[0]) for row in weeks] == list(range(1, 11))
    assert [number for row in weeks for number in row[1].split(", ")] == list(LESSONS)


def test_plans_and_guides_name_the_part_of_every_lesson():
    text = (TEACHING / "plans.md").read_text(encoding="utf-8")
    for row in next(table for table in tables(text) if table[0][0] == "week")[1:]:
        parts = dict.fromkeys(part_of(number) for number in row[1].split(", "))
        assert row[2] == ", ".join(f"{part.number} {part.title}" for part in parts)
    for name in ("start", "metric", "meta", "beyond"):
        title = (TEACHING / f"guide_{name}.md").read_text(encoding="utf-8").splitlines()[0]
        number, word, first, last = re.match(r"# Part (\w+), (\w+): lessons (\d\d) to (\d\d)$", title).groups()
        assert {(part_of(lesson).number, part_of(lesson).title) for lesson in (first, last)} == {(number, word)}


# ------------------------------------------------------------------------------------------------ the rubric


def test_the_rubric_has_the_criteria_and_points_of_the_plan_and_its_levels_fall():
    plan = re.search(r"^Marks: (.+?)\.", (TEACHING / "plans.md").read_text(encoding="utf-8"), flags=re.M)[1]
    planned = [int(points) for points in re.findall(r"\((\d+)\)", plan)]
    rubric = tables((TEACHING / "rubric.md").read_text(encoding="utf-8"))[0]
    assert rubric[0][:2] == ["criterion", "points"]
    assert [int(row[1]) for row in rubric[1:]] == planned
    assert sum(planned) == 100
    for row in rubric[1:]:
        levels = [re.match(r"(\d+): .{20,}", cell) for cell in row[2:]]
        points = [int(level[1]) for level in levels]
        assert len(points) == 4
        assert points[0] == int(row[1])
        assert points == sorted(set(points), reverse=True)
