"""Which cells are folded: those that only draw, whatever they draw with, and those that the lesson tags."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.notebooks.cells import SOLVED, STUDENT, notebook
from tools.notebooks.folding import figure_names, only_draws

FIGURES = {"new", "show", "intervals", "draw_image", "slot_style", "SLOTS"}

DRAWS = {
    "a figure of the package": "show(intervals(rows, chance=0.2), f'accuracy {told}')",
    "axes": "figure, axis = new(7, 3)\naxis.plot(x, y, **slot_style(0))\nshow(figure, 'a line')",
    "many axes": "figure, axes = new()\nfor axis, row in zip(axes, rows):\n    axis.plot(row.mean(0))\nshow(figure, 'x')",
    "what axes return": "figure, axis = new()\nbars = axis.bar(x, y)\naxis.bar_label(bars)\nshow(figure, 'bars')",
    "words and their print": (
        "told = ', '.join(f'{name} {mean:.0%}' for name, mean in rows.items())\n"
        "print(told)\nfigure, axis = new()\nif told:\n    axis.set(title=told)\nshow(figure, told)"
    ),
    "pictures": "figure, grid = new(columns=3)\nfor i, axis in enumerate(grid):\n    draw_image(axis, x[i])\nshow(figure, 'x')",
}
COMPUTES = {
    "no figure": "told = ', '.join(names)\nprint(told)",
    "a drawn but not shown figure": "figure, axis = new()\naxis.plot(x, y)",
    "an evaluation": "rows = evaluate(net, sampler)\nshow(intervals(rows), 'rows')",
    "a network in the loop": "figure, axes = new()\nfor a, net in zip(axes, nets):\n    a.plot(net.embed(x))\nshow(figure, 'x')",
    "a network among the arguments": "figure, axis = new()\naxis.plot(net(x))\nshow(figure, 'x')",
    "torch": "figure, axis = new()\naxis.plot(torch.linalg.svd(x))\nshow(figure, 'x')",
    "a function": "def draw():\n    show(figure, 'x')\ndraw()",
    "an assertion": "assert x\nshow(figure, 'x')",
    "an exercise": "mean = check('05.1', mean)\nshow(figure, 'x')",
    "another library's show": "from other import show as display\ndisplay(figure)",
}


@pytest.mark.parametrize("source", DRAWS.values(), ids=DRAWS)
def test_cells_that_only_draw_are_found(source: str):
    assert only_draws(source, FIGURES)


@pytest.mark.parametrize("source", COMPUTES.values(), ids=COMPUTES)
def test_cells_that_compute_are_left_open(source: str):
    assert not only_draws(source, FIGURES)


def test_only_names_of_the_figures_module_draw():
    source = "from fsl_course.figures import new as fresh, show\nfrom elsewhere import intervals\nimport torch"
    assert figure_names(source) == {"fresh", "show"}
    assert only_draws("show(figure, 'x')", {"show"})
    assert not only_draws("show(figure, 'x')", set())


LESSON = """
# %%
from fsl_course.figures import new, show

figure, axis = new()

# %%
show(figure, "a line")

# %% tags=["open"]
show(figure, "a line")

# %% tags=["draws", "nbval-check-output"]
show(net(figure), "a line")
"""


@pytest.mark.parametrize("version", [STUDENT, SOLVED])
def test_the_build_folds_for_lab_and_for_the_book(tmp_path: Path, version: str):
    (tmp_path / "lessons").mkdir()
    settings = '[tool.fsl_course]\nrepository = "https://github.com/someone/course"\nbranch = "main"\n'
    (tmp_path / "pyproject.toml").write_text(settings)
    lesson = tmp_path / "lessons" / "05_means.py"
    lesson.write_text(LESSON)
    cells = {cell.id: cell.metadata for cell in notebook(tmp_path, lesson, version).cells}
    hidden = {"source_hidden": True}
    assert cells["05-001"] == {}
    assert cells["05-002"] == {"jupyter": hidden, "tags": ["hide-input"]}
    assert cells["05-003"] == {"tags": ["open"]}
    assert cells["05-004"] == {"jupyter": hidden, "tags": ["draws", "nbval-check-output", "hide-input"]}
