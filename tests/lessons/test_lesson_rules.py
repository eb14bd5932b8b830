"""The rules of test_lessons.py pass a lesson that keeps them and refuse one that breaks any."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lessons.reading import count_words
from tests.lessons.test_lessons import RULES

TEXT = "One two three four five six seven eight nine ten. " * 3
TITLE = "# 05 Means\n60 minutes. [run]({{binder}}) [on Colab]({{colab}}) [solved]({{solution}}) [next]({{next}})"
ANSWER = "<details><summary>Answer</summary>\n\nYes.\n</details>\n\n"
HEADER = "| symbol | variable | shape |\n|---|---|---|\n"
EXERCISE = """def mean_{0}(values):
    # BEGIN SOLUTION
    return sum(values) / {0}
    # END SOLUTION


mean_{0} = check("05.{0}", mean_{0})"""


def good_lesson() -> str:
    """A lesson of 37 cells without sense that keeps every rule."""
    text = [
        f"{TITLE}\n\n{TEXT}",
        f"## Recall\n{TEXT}\n{ANSWER * 2}",
        "## Objectives\n"
        + "".join(f"- Do this and then do that until it works ({id})\n" for id in ("05.1", "05.2", "05.1")),
        f'## A puzzle: which?\n{TEXT} See [episode](../lessons/GLOSSARY.md#episode "情景").',
        f"## The idea\n{TEXT}\n\n$$a = 1$$\n\n{HEADER}",
        f"### Exercise 05.1  First\n{TEXT}",
        f"### Exercise 05.2  Second\n{TEXT}",
        *[TEXT] * 10,
        f"## Bug hunt\n{TEXT}",
        f"## Quiz\n{TEXT}\n{ANSWER * 4}",
        f"## Summary\n{TEXT}",
        f"## References\n{TEXT}",
    ]
    code = [EXERCISE.format(1), EXERCISE.format(2), *["total = 1"] * 14]
    cells = ["# %% [markdown]\n" + "\n".join(f"# {line}".rstrip() for line in cell.split("\n")) for cell in text]
    return "\n\n".join(cells + [f"# %%\n{cell}" for cell in code])


def written(root: Path, lesson: str, name: str = "05_means") -> Path:
    """A checkout that holds this lesson; the lesson's path."""
    (root / "lessons").mkdir()
    (root / "pyproject.toml").write_text('[tool.fsl_course]\nrepository = "https://github.com/a/b"\nbranch = "main"\n')
    (root / "README.md").touch()
    (root / "lessons" / "GLOSSARY.md").write_text(
        '# Glossary\n| <a id="episode"></a>episode | 情景 (episode) | A task. |\n## Own heading!\n'
    )
    path = root / "lessons" / f"{name}.py"
    path.write_text(lesson)
    return path


def broken_rules(lesson: Path) -> list[str]:
    return [rule.__name__ for rule in RULES if rule(lesson)]


def test_a_good_lesson_keeps_every_rule(tmp_path: Path):
    lesson = written(tmp_path, good_lesson())
    assert {rule.__name__: rule(lesson) for rule in RULES} == {rule.__name__: [] for rule in RULES}


def test_lesson_00_needs_neither_recall_nor_bug_hunt(tmp_path: Path):
    text = good_lesson().replace("05", "00").replace("## Recall", "## Welcome").replace("## Bug hunt", "## More")
    assert broken_rules(written(tmp_path, text, "00_means")) == []


def test_a_starred_exercise_after_the_references_comes_on_top_of_70_cells(tmp_path: Path):
    full = good_lesson() + "\n\n# %%\ntotal = 1" * 33
    extra = f"\n\n# %% [markdown]\n# ### Exercise 05.3 ★  Third\n# {TEXT}\n\n# %%\n{EXERCISE.format(3)}"
    for place, (text, kept) in enumerate(((full, True), (full + "\n\n# %%\ntotal = 1", False), (full + extra, True))):
        lesson = written(made_folder(tmp_path, place), text)
        assert ("it_has_30_to_70_cells" not in broken_rules(lesson)) == kept, place


def made_folder(root: Path, place: int) -> Path:
    folder = root / str(place)
    folder.mkdir()
    return folder


@pytest.mark.parametrize(
    ("old", "new", "rule"),
    [
        ("# END SOLUTION", "# THE END", "it_converts"),
        ("See [", "{{seconds}} [", "it_converts"),
        ("# %%\ntotal = 1\n\n" * 8, "", "it_has_30_to_70_cells"),
        ("# %%\ntotal = 1\n\n", "# %%\ntotal = 1\n\n" * 4, "it_has_30_to_70_cells"),
        ("total = 1", "total = 1\n" * 40 + "total", "code_cells_are_short"),
        ("total = 1", "total = 1\n" * 16 + "total", "code_cells_are_short"),
        ("See [", f"{TEXT * 4} See [", "text_cells_are_short"),
        (f"# {TEXT}".rstrip(), f"# {TEXT * 3}", "text_cells_are_short"),
        (f"# {TEXT}".rstrip(), "# Three short words", "text_cells_are_short"),
        ("# %%\ndef mean_1", '# %% tags=["draws"]\ndef mean_1', "folds_hide_no_exercise"),
        ("total = 1", f"total = {' + '.join('1' * 22)}", "code_fits_88_columns"),
        (' "情景")', ")", "chinese_terms_are_titles_of_links"),
        ("情景", "任务", "chinese_terms_are_titles_of_links"),
        ("See [", "任务 See [", "chinese_terms_are_titles_of_links"),
        ("total = 1", "total = 1  # 任务", "chinese_terms_are_titles_of_links"),
        ("# 05 Means", "# Means", "it_opens_with_its_title"),
        ("60 minutes", "an hour", "it_opens_with_its_title"),
        ("{{binder}}", "{{repository}}", "it_opens_with_its_title"),
        ("{{colab}}", "{{repository}}", "it_opens_with_its_title"),
        ("## Quiz", "## Questions", "it_has_the_sections_in_order"),
        ("## Summary", "## Quiz", "it_has_the_sections_in_order"),
        ("# - Do this", "# Do this", "recall_objectives_and_quiz_are_complete"),
        ("works (05.1)", "works", "recall_objectives_and_quiz_are_complete"),
        ("works (05.1)", "works (05.7)", "recall_objectives_and_quiz_are_complete"),
        ("<details>", "<div>", "recall_objectives_and_quiz_are_complete"),
        ('check("05.2"', 'check("04.2"', "exercises_belong_to_the_lesson"),
        ("### Exercise 05.2", "### Exercise", "exercises_belong_to_the_lesson"),
        ("# $$a = 1$$", "# $$a$$ $$b$$ $$c$$", "equations_are_few_and_explained"),
        ("# $$a = 1$$", "# $$a = 1", "equations_are_few_and_explained"),
        ("| symbol |", "| thing |", "equations_are_few_and_explained"),
        ("total = 1", "page = urlopen('https://example.org')", "code_fetches_nothing"),
        ("#episode", "#unknown-term", "links_lead_somewhere"),
        ("GLOSSARY.md", "MISSING.md", "links_lead_somewhere"),
        ("../lessons/GLOSSARY.md", "", "links_lead_somewhere"),
        ("../lessons/GLOSSARY.md#episode", "../../outside.md", "links_lead_somewhere"),
        ("See [episode](", "See ![](", "links_lead_somewhere"),
    ],
)
def test_each_rule_refuses_what_breaks_it(tmp_path: Path, old: str, new: str, rule: str):
    text = good_lesson()
    assert old in text
    lesson = written(tmp_path, text.replace(old, new))
    named = {one.__name__: one for one in RULES}
    assert named[rule](lesson)


@pytest.mark.parametrize(("lines", "kept"), [(58, True), (59, False)])
def test_folded_cells_may_be_longer_and_do_not_count_for_the_median(tmp_path: Path, lines: int, kept: bool):
    text = good_lesson().replace("total = 1", "from fsl_course.figures import new, show", 1)
    drawing = "figure, axis = new()\n" + "axis.plot([0], [1])\n" * lines + "show(figure, 'a line')"
    lesson = written(tmp_path, text.replace("total = 1", drawing))
    assert broken_rules(lesson) == ([] if kept else ["code_cells_are_short"])


def test_anchors_may_be_headings(tmp_path: Path):
    assert broken_rules(written(tmp_path, good_lesson().replace("#episode", "#own-heading"))) == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("## Four words of heading\nThese are four words", 4),
        ("| a | b |\n|---|---|\n| one two | three |", 0),
        ("Before\n\n$$ x + y = z $$\n\nafter $x + y$ and `a + b`", 5),
        ("<details><summary>Answer</summary>\n\nlong text\n</details>\n\nshort", 1),
        ("```python\nx = 1\n```\n<b>bold</b> word", 2),
        ("- [Binder](https://a.b/c?d=e) · [next one](../x.md)\n- see [two words](a.md)", 3),
        ("![alt text of a picture](a.png)", 0),
    ],
)
def test_what_counts_as_a_word(text: str, words: int):
    assert count_words(text) == words
