"""tools/book/readme.py: the parts of README.md that are made from elsewhere."""

import json
from pathlib import Path

import pytest

from tools.book import readme
from tools.book.lessons import LessonError, lessons

LESSON = """# %% [markdown]
# # 07 Inner loop
#
# You adapt a network
# by hand ([term](../lessons/GLOSSARY.md#task)).
#
# Prerequisites: [lesson 06](x.ipynb). Planned time: 50 minutes.
# %%
print(1)
"""
BLOCKS = ("badges", "lessons", "results", "speed")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "lessons").mkdir()
    (tmp_path / "data").mkdir()
    (tmp_path / "fsl_course").mkdir()
    (tmp_path / "fsl_course" / "nets.py").write_text("x = 1\n" * 101)
    (tmp_path / "lessons" / "07_inner.py").write_text(LESSON)
    (tmp_path / "data" / "lesson_times.json").write_text(json.dumps({"07_inner": {"seconds": 41.6, "peak_mb": 512.3}}))
    (tmp_path / "pyproject.toml").write_text(
        '[tool.fsl_course]\nrepository = "https://github.com/a/b"\nbranch = "main"\n'
    )
    blocks = "".join(f"<!-- {name} -->\nold\n<!-- /{name} -->\n" for name in BLOCKS)
    (tmp_path / "README.md").write_text(
        f"top <!-- count -->w<!-- /count -->: <!-- hours -->x<!-- /hours -->, <!-- lines -->y<!-- /lines -->.\n{blocks}end\n"
    )
    return tmp_path


def test_a_row_comes_from_the_lesson_and_the_measurement(project):
    _, _, see, adapt, *rest = readme.chapter_map(project).splitlines()
    assert see.endswith("| in the making |  |")
    assert adapt.startswith("| **II Adapt** ")
    assert adapt.endswith("| [07 Inner loop](notebooks/07_inner.ipynb) | 0.8 |")
    assert len(rest) == 2
    (lesson,) = lessons(project)
    assert lesson.promise == "You adapt a network by hand ([term](../lessons/GLOSSARY.md#task))."
    assert (lesson.needs, lesson.planned, lesson.seconds, lesson.memory) == ("lesson 06", "50 min", "42 s", "512 MB")
    assert lesson.solution == "solutions/07_inner.ipynb"


def test_only_the_marked_parts_change_and_twice_is_once(project):
    text = readme.rendered(project)
    assert text.startswith(
        "top <!-- count -->One<!-- /count -->: <!-- hours -->1 hours<!-- /hours -->, <!-- lines -->200"
    )
    assert "<!-- badges -->\n[![Open the course on Binder]" in text
    assert "mybinder.org/v2/gh/a/b/main?urlpath=lab/tree/notebooks/00_start.ipynb" in text
    assert "old" not in text
    assert text.endswith("<!-- /speed -->\nend\n")
    (project / "README.md").write_text(text)
    assert readme.rendered(project) == text


def test_a_missing_marker_is_named(project):
    (project / "README.md").write_text("nothing\n")
    with pytest.raises(SystemExit, match="<!-- badges -->"):
        readme.rendered(project)


@pytest.mark.parametrize(
    "gone", ["# You adapt a network\n# by hand", "Prerequisites", "50 minutes", "# # 07 Inner loop"]
)
def test_a_lesson_without_a_promise_is_named(project, gone):
    (project / "lessons" / "07_inner.py").write_text(LESSON.replace(gone, "-"))
    with pytest.raises(LessonError, match=r"07_inner\.py: the first cell needs"):
        readme.chapter_map(project)


def test_the_short_tables_have_four_rows_of_what_was_measured(monkeypatch):
    drawn = readme.short_results().replace("\N{NO-BREAK SPACE}", " ")
    rows = drawn.split("\n\n")[0].split("\n")[2:]
    assert len(rows) == len(readme.METHODS) == 4
    assert rows[0].startswith("| Prototypical | 99.3 ± 0.1 (98.8) |")
    assert any(row.startswith("| MAML, transductive | 99.1 ± 0.3 (98.7) |") for row in rows)
    speed = readme.short_speed().replace("\N{NO-BREAK SPACE}", " ").split("\n")[2:]
    assert len(speed) == len(readme.WORKS) == 4
    assert speed[0] == "| draw one 20-way 5-shot episode | easyfsl 1.5.0 | 220 µs | 7.93 ms | 36.2 |"
    monkeypatch.setattr(readme.files, "rows", list)
    monkeypatch.setattr(readme.files, "benchmark", lambda: None)
    assert readme.short_results() == readme.short_speed() == ""


def test_the_readme_agrees_with_lessons_and_measured_times():
    assert readme.rendered(readme.ROOT) == (readme.ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("number", "word"),
    [(1, "One"), (10, "Ten"), (12, "Twelve"), (19, "Nineteen"), (20, "Twenty"), (27, "Twenty-seven"), (30, "Thirty")],
)
def test_the_number_of_lessons_is_a_word(number, word, monkeypatch):
    monkeypatch.setattr(readme, "lessons", lambda root: [None] * number)
    assert readme.count(Path()) == word
