"""The rules for lessons that a machine can check, over every lessons/NN_name.py. Those on form stand in form.py.

HEADINGS names the sections that each lesson has, in this order. A heading may go on after its name ("## A puzzle: who wins?").
"""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from urllib.parse import unquote

import pytest

import tests.lessons.form  # noqa: F401 - registers the rules on form
from tests.lessons.reading import RULES, Rule, exercises, is_first, rule, section, sections, sources
from tools.notebooks.build import ROOT, check, orphans
from tools.notebooks.cells import SOLVED, STUDENT, is_added, lesson_files, notebook, read_cells

HEADINGS = ("Recall", "Objectives", "A puzzle", "Bug hunt", "Quiz", "Summary", "References")
NOT_IN_THE_FIRST = ("Recall", "Bug hunt")  # lesson 00 has nothing to recall and no method to hide a bug in
LINKS_OF_THE_TITLE = ("{{binder}}", "{{colab}}", "{{solution}}", "{{next}}")
FETCH = re.compile(r"https?://|\burllib\b|\brequests\.|\burlopen\b|download=True|torch\.hub|\b(?:wget|curl)\b")


@rule
def it_opens_with_its_title(lesson: Path) -> list[str]:
    """The first cell: "# NN Title", the planned minutes, the four links."""
    first = read_cells(lesson)[0]
    problems = []
    if first.cell_type != "markdown" or not re.match(rf"# {lesson.name[:2]} \S", first.source):
        problems.append(f'the first cell must be text and start with "# {lesson.name[:2]} Title"')
    if not re.search(r"\d+ minutes", first.source):
        problems.append('the first cell must say how many "minutes" are planned, e.g. "60 minutes"')
    return problems + [f"the first cell lacks {link}" for link in LINKS_OF_THE_TITLE if link not in first.source]


@rule
def it_has_the_sections_in_order(lesson: Path) -> list[str]:
    """All of HEADINGS, once each and in that order."""
    wanted = [name for name in HEADINGS if not (is_first(lesson) and name in NOT_IN_THE_FIRST)]
    found = [name for heading, _ in sections(lesson) for name in wanted if re.match(rf"{name}\b", heading)]
    return [] if found == wanted else [f'its "## " sections are {found}; needed in this order: {wanted}']


@rule
def recall_objectives_and_quiz_are_complete(lesson: Path) -> list[str]:
    """2 recall questions, 4 to 6 quiz items, answers collapsed; 3 to 5 objectives, each with its exercise (00: or quiz)."""
    problems = []
    if not is_first(lesson) and (count := section(lesson, "Recall").count("<details")) != 2:
        problems.append(f"Recall has {count} collapsed answers (<details>); 2 are right")
    if not 4 <= (count := section(lesson, "Quiz").count("<details")) <= 6:
        problems.append(f"Quiz has {count} collapsed answers (<details>); 4 to 6 are right")
    objectives = re.findall(r"^(?:[-*]|\d+\.) .*(?:\n[ \t]+\S.*)*", section(lesson, "Objectives"), flags=re.MULTILINE)
    if not 3 <= len(objectives) <= 5:
        problems.append(f"Objectives lists {len(objectives)} items; 3 to 5 are right")
    known = exercises(lesson)
    for objective in objectives:
        by_quiz = is_first(lesson) and re.search(r"\bquiz\b", objective)
        if not by_quiz and not known & set(re.findall(r"\b\d\d\.\d+\b", objective)):
            problems.append(f"this objective names no exercise of the lesson ({sorted(known)}): {objective!r}")
    return problems


@rule
def exercises_belong_to_the_lesson(lesson: Path) -> list[str]:
    """Every number starts with the lesson's; every exercise has its heading; at least two (lesson 00: one)."""
    found, least = exercises(lesson), 1 if is_first(lesson) else 2
    asked = found | set(re.findall(r"\bhint\(\s*[\"'](\d+\.\d+)[\"']", "\n".join(sources(lesson, "code"))))
    problems = [f"{id} is an exercise of another lesson" for id in asked if not id.startswith(lesson.name[:2] + ".")]
    text = "\n".join(sources(lesson, "markdown"))
    problems += [
        f'exercise {id} has no heading "### Exercise {id}"'
        for id in found
        if not re.search(rf"^###+ .*Exercise {re.escape(id)}\b", text, flags=re.MULTILINE)
    ]
    return problems + ([] if len(found) >= least else [f"{len(found)} exercises; at least {least}"])


@rule
def equations_are_few_and_explained(lesson: Path) -> list[str]:
    """At most two display equations per cell; with any, a table "| symbol | variable | shape |" in the lesson."""
    texts = sources(lesson, "markdown")
    problems = [f"a $$ is not closed: {text[:60]!r}" for text in texts if text.count("$$") % 2]
    problems += [f"more than two display equations: {text[:60]!r}" for text in texts if text.count("$$") > 4]
    table = r"^\| *symbol *\| *variable *\| *shape *\|"
    if "$$" in "".join(texts) and not re.search(table, "\n".join(texts), flags=re.MULTILINE):
        problems.append("it has display equations but no table | symbol | variable | shape |")
    return problems


@rule
def code_fetches_nothing(lesson: Path) -> list[str]:
    """No address and no download in code cells (comment lines aside)."""
    lines = [line for source in sources(lesson, "code") for line in source.split("\n")]
    return [f"fetches: {line.strip()}" for line in lines if FETCH.search(line) and not line.lstrip().startswith("#")]


@rule
def links_lead_somewhere(lesson: Path) -> list[str]:
    """Relative links, seen from the built notebook, name files and anchors that exist; pictures have alt text."""
    root = lesson.parent.parent
    cells = [cell for cell in notebook(root, lesson, STUDENT).cells if cell.cell_type == "markdown"]
    problems = []
    for cell in cells:
        text = re.sub(r"```.*?```|`[^`]*`|\$[^$]*\$", "", cell.source, flags=re.DOTALL)
        if re.search(r"!\[\s*\]\(|<img(?![^>]*\balt=[\"'][^\"']*\w)", text):
            problems.append(f"cell {cell.id}: a picture without alt text")
        targets = re.findall(r"\]\(\s*<?([^)\s>]+)|(?:href|src)=[\"']([^\"']+)", text)
        problems += [f"cell {cell.id}: {p}" for one, two in targets if (p := link_problem(one or two, root))]
    return problems


def link_problem(target: str, root: Path) -> str:
    """What is wrong with a link in a built notebook; "" when nothing is."""
    if re.match(r"[a-z]+:", target):
        return ""
    path, _, anchor = target.partition("#")
    if not path:
        return f"{target} leads into the page; such anchors differ between Jupyter and HTML, name the section instead"
    file = (root / STUDENT / unquote(path)).resolve()
    if not file.is_relative_to(root.resolve()):
        return f"{target} leads out of the repository"
    to_build = file.parent.name in (STUDENT, SOLVED) and (root / "lessons" / f"{file.stem}.py").exists()
    if not file.exists() and not to_build:
        return f"{target} leads to a file that does not exist"
    if anchor and file.suffix == ".md" and unquote(anchor) not in anchors(file.read_text(encoding="utf-8")):
        return f"{target}: {path} has no anchor {anchor}"
    return ""


def anchors(text: str) -> set[str]:
    """What a link may name in a Markdown file: <a id="..."> and GitHub's names of its headings."""
    headings = re.findall(r"^#+ +(.+?)\s*$", text, flags=re.MULTILINE)
    slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    return slugs | set(re.findall(r"\b(?:id|name)=[\"']([^\"']+)", text))


LESSONS = lesson_files(ROOT)


def test_there_are_lessons():
    assert LESSONS, "lessons/ holds no NN_name.py, so the rules below checked nothing"


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.stem)
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_lesson_keeps_the_rule(lesson: Path, rule: Rule):
    problems = rule(lesson)
    assert not problems, "\n".join([f"lessons/{lesson.name}: {rule.__doc__}", *problems])


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.stem)
def test_committed_notebooks_agree_with_the_lesson(lesson: Path):
    problems = list(check(ROOT, lesson))
    assert not problems, "\n".join(problems)
    assert lesson.stem in json.loads((ROOT / "data" / "lesson_times.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.stem)
def test_student_notebooks_parse_and_leak_no_solution(lesson: Path):
    """Up to and with the cell of its exercise, no line of a solution can be read in the committed student notebook."""
    student = json.loads((ROOT / STUDENT / f"{lesson.stem}.ipynb").read_text(encoding="utf-8"))["cells"]
    student = [cell for cell in student if not is_added(cell)]
    seen, leaks = "", []
    for solved, cell in zip(read_cells(lesson), student, strict=True):
        source = "".join(cell["source"])
        seen += source + "\n"
        if cell["cell_type"] != "code":
            continue
        ast.parse(source)
        for part in solved.source.split("# BEGIN SOLUTION")[1:]:
            lines = map(str.strip, part.partition("# END SOLUTION")[0].splitlines())
            leaks += [f"{cell['id']}: {line}" for line in lines if len(line) >= 12 and line in seen]
    assert not leaks, "\n".join(leaks)


def test_every_notebook_has_a_lesson():
    assert list(orphans(ROOT)) == []
