"""The teaching material: minutes add up, nobody sits too long, numbers are those of the solved notebooks."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from fsl_classroom.checking.catalogue import all_exercises, of_lesson
from tools.book import lesson_map
from tools.classroom.quiz import draw, load
from tools.notebooks.parts import part_of, planned_minutes

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
def test_the_guide_says_of_every_exercise_what_goes_wrong(lesson):
    mistakes = next(table for table in tables(GUIDE[lesson]) if table[0] == ["exercise", "what students write", "say"])
    told = [id for row in mistakes[1:] for id in re.findall(r"\d\d\.\d+", row[0])]
    assert set(told) == {exercise.id for exercise in of_lesson(lesson)}
    assert told == sorted(told)
    assert all(len(row) == 3 and row[1] and row[2].startswith('"') for row in mistakes[1:])


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


def sections() -> dict[str, str]:
    """Title -> text of the sections of the plans."""
    text = (TEACHING / "plans.md").read_text(encoding="utf-8")
    return {section.splitlines()[0]: section for section in re.split(r"^## ", text, flags=re.M)[1:]}


def weeks(plan: str) -> list[Row]:
    return next(table for table in tables(sections()[plan]) if table[0][0] == "week")[1:]


def minutes_of(cell: str) -> list[tuple[str, int]]:
    """(lesson, minutes) of every item of a cell such as "08: 08.2 (50); posters (25)"; no lesson is ""."""
    items = [re.fullmatch(r"(?:(\d\d): )?.+ \((\d+)\)", item) for item in cell.split("; ")]
    return [(item[1] or "", int(item[2])) for item in items if item]


def planned(lesson: str) -> int:
    return planned_minutes(LESSONS[lesson])


def spread(text: str) -> list[str]:
    """Lesson numbers in words such as "00, 05 to 07"."""
    pairs = re.findall(r"\b(\d\d)\b(?: to (\d\d)\b)?", text)
    return [f"{n:02d}" for first, last in pairs for n in range(int(first), int(last or first) + 1)]


@pytest.mark.parametrize(("plan", "count", "most"), [("Ten weeks", 10, 165), ("Fifteen weeks", 15, 105)])
def test_the_weeks_meet_every_lesson_in_order_and_fill_the_hours(plan, count, most):
    rows = weeks(plan)
    in_class = next(int(minutes) for _, minutes, what in timetables()["Ten weeks"] if what == "the lesson of the week")
    assert [int(row[0]) for row in rows] == list(range(1, count + 1))
    assert [number for row in rows for number in row[1].split(", ")] == spread("00 to 26")
    assert f"at most {most} minutes" in sections()[plan]
    home = [sum(minutes for _, minutes in minutes_of(row[4])) for row in rows]
    assert max(home) == most
    for row in rows:
        assert sum(minutes for _, minutes in minutes_of(row[3])) == in_class, row[0]
        assert {lesson for lesson, _ in minutes_of(row[3])} - {""} <= set(row[1].split(", ")), row[0]


@pytest.mark.parametrize("lesson", LESSONS)
def test_class_and_homework_together_are_the_planned_minutes(lesson):
    for plan, talks in (("Ten weeks", "19 to 25"), ("Fifteen weeks", "")):
        spent = sum(m for row in weeks(plan) for cell in row[3:5] for one, m in minutes_of(cell) if one == lesson)
        if lesson in spread(talks):  # one group works through it at home, before its talk
            talk = re.search(rf"one of {talks} in full, for the group's talk \((\d+)\)", sections()[plan])
            assert 0 < spent < planned(lesson) <= int(talk[1])
        else:
            assert spent == planned(lesson), plan


def test_plans_name_exercises_that_exist():
    named = {id for plan in ("Ten weeks", "Fifteen weeks") for id in re.findall(r"\b[012]\d\.\d\b", sections()[plan])}
    assert len(named) > 90
    assert named <= {exercise.id for exercise in all_exercises()}


def test_every_plan_says_what_it_takes_and_what_it_leaves_out():
    text = (TEACHING / "plans.md").read_text(encoding="utf-8").partition("\n## ")[0]
    rows = {row[0]: row[1:] for row in tables(text)[0][1:]}
    assert [plan.lower() for plan in sections()][:4] == list(rows)
    for taken, left in rows.values():
        assert sorted([*spread(taken.partition(";")[0]), *spread(left)]) == spread("00 to 26")
    for plan in ("Two hours", "One day"):
        whole = " ".join(" ".join(row) for row in timetables()[plan])
        met = set(re.findall(r"lesson (\d\d)", whole))
        assert met == set(spread(rows[plan.lower()][0]))


def test_what_is_left_out_first_is_needed_by_nothing_that_stays():
    needs = lesson_map.prerequisites()
    rows = tables(sections()["What to leave out first"])[0][1:]
    gone, together = set(), 0
    for lesson, minutes, total, what in rows:
        gone.add(lesson)
        together += planned(lesson)
        assert (int(minutes), int(total)) == (planned(lesson), together), lesson
        assert what
        assert [one for one, wanted in needs.items() if one not in gone and gone & set(wanted)] == []
    assert len(gone) >= 10


def test_plans_and_guides_name_the_part_of_every_lesson():
    for row in weeks("Ten weeks") + weeks("Fifteen weeks"):
        parts = dict.fromkeys(part_of(number) for number in row[1].split(", "))
        assert row[2] == ", ".join(f"{part.number} {part.title}" for part in parts)
    for name in ("start", "metric", "meta", "beyond", "elsewhere"):
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


# ------------------------------------------------------------------------------------------------ the page for teachers


def test_the_page_for_teachers_names_the_lessons_with_a_widget_and_the_largest_one():
    text = (TEACHING / "README.md").read_text(encoding="utf-8")
    widgets = [
        n for n, path in LESSONS.items() if "from fsl_classroom.widgets import" in path.read_text(encoding="utf-8")
    ]
    assert f"Lessons {', '.join(widgets[:-1])} and {widgets[-1]} have a widget" in text
    times = json.loads((ROOT / "data" / "lesson_times.json").read_text(encoding="utf-8"))
    largest = max(times, key=lambda name: times[name]["peak_mb"])
    number, size = re.search(r"the largest lesson \((\d\d)\) needs ([\d.]+) GB", text).groups()
    assert number == largest[:2]
    assert times[largest]["peak_mb"] / 1000 <= float(size) < times[largest]["peak_mb"] / 1000 + 0.1
