"""Every widget, moved by mouse and keyboard in JupyterLab."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from playwright.sync_api import Page

from tests.browser.conftest import screenshot

pytestmark = pytest.mark.browser
Scratch = Callable[[str, str], Page]


def show(name: str) -> str:
    return f"from fsl_classroom.widgets import {name}\n{name}()"


def wait_for_change(page: Page, selector: str, before: str) -> str:
    """The text of an element once it differs from what it was."""
    page.wait_for_function(
        "([selector, before]) => document.querySelector(selector).innerText !== before", arg=[selector, before]
    )
    return page.inner_text(selector)


def draw(page: Page, canvas: str, strokes: list[list[tuple[float, float]]]) -> None:
    """Draw with the mouse. strokes: points in 0..1 of the canvas, from the upper left."""
    page.locator(canvas).scroll_into_view_if_needed()
    box = page.locator(canvas).bounding_box()
    for stroke in strokes:
        for place, (x, y) in enumerate(stroke):
            page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"], steps=6 if place else 1)
            if place == 0:
                page.mouse.down()
        page.mouse.up()


RING = [[(0.5, 0.2), (0.75, 0.3), (0.8, 0.5), (0.7, 0.75), (0.5, 0.8), (0.3, 0.7), (0.2, 0.5), (0.3, 0.3), (0.5, 0.2)]]
CROSS = [[(0.25, 0.25), (0.75, 0.75)], [(0.75, 0.25), (0.25, 0.75)]]
ANOTHER_RING = [[(0.45, 0.25), (0.7, 0.3), (0.75, 0.55), (0.6, 0.8), (0.35, 0.72), (0.25, 0.45), (0.45, 0.25)]]


def test_a_character_drawn_with_the_mouse_is_named_by_every_method(scratch_notebook: Scratch):
    page = scratch_notebook("alphabet", show("TeachAlphabet"))
    examples, query = ".fsl-example-pad canvas", ".fsl-query-pad canvas"
    page.wait_for_selector(query)
    draw(page, examples, RING)
    page.get_by_role("button", name="Add this drawing").click()
    page.get_by_role("button", name="New character").click()
    draw(page, examples, CROSS)
    page.get_by_role("button", name="Add this drawing").click()
    draw(page, query, ANOTHER_RING)
    guesses = ".fsl-verdict[data-guess]"
    page.wait_for_selector(guesses)
    page.wait_for_function(f"() => document.querySelectorAll('{guesses}').length >= 5")
    cards = f"() => [...document.querySelectorAll('{guesses}')]"
    found = dict(page.evaluate(cards + ".map(e => [e.dataset.method, e.dataset.guess])"))
    assert set(found) >= {"prototypical", "siamese", "matching", "relation", "transfer"}
    assert found["prototypical"] == "A"
    assert list(found.values()).count("A") >= 4  # a ring is no cross, whoever draws it
    screenshot(page, "teach_alphabet")
    page.get_by_role("button", name="Fill with letters nobody trained on").click()
    page.wait_for_selector(".fsl-verdict[data-method=maml][data-guess]")  # five characters: the trained head joins
    screenshot(page, "teach_alphabet_filled", whole=True)


def test_a_character_can_be_drawn_with_the_keyboard(scratch_notebook: Scratch):
    page = scratch_notebook("keyboard", show("TeachAlphabet"))
    page.wait_for_selector(".fsl-example-pad canvas")
    page.focus(".fsl-example-pad canvas")
    for key in ["Space", *["ArrowRight"] * 6, *["ArrowDown"] * 6, "Space"]:
        page.keyboard.press(key)
    page.get_by_role("button", name="Add this drawing").click()
    pictures = page.locator(".fsl-teach-alphabet img")
    pictures.first.wait_for()  # the kernel answers when it can: the drawing comes back as a picture
    assert pictures.count() == 1


def test_the_explorer_shows_a_leak(scratch_notebook: Scratch):
    page = scratch_notebook("explorer", show("EpisodeExplorer"))
    status = ".fsl-episode-explorer [role=status]"
    page.wait_for_selector(status)
    before = page.inner_text(status)
    chooser = page.locator(".fsl-episode-explorer select").nth(1)
    chooser.select_option(label="a drawing is in support and query")
    assert wait_for_change(page, status, before) != before
    screenshot(page, "episode_explorer", whole=True)


def test_points_of_the_board_move_with_mouse_and_keys(scratch_notebook: Scratch):
    page = scratch_notebook("board", show("PrototypeBoard"))
    page.wait_for_selector(".fsl-prototype-board .point")
    point = page.locator(".fsl-prototype-board .point").first
    point.scroll_into_view_if_needed()
    pixels = "() => document.querySelector('.fsl-prototype-board canvas').toDataURL()"
    before, box = page.evaluate(pixels), point.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + 90, box["y"] + 70, steps=12)
    page.mouse.up()
    page.wait_for_function(f"before => ({pixels})() !== before", arg=before)
    screenshot(page, "prototype_board")
    point.focus()
    label = point.get_attribute("aria-label")
    page.keyboard.press("ArrowRight")
    page.wait_for_function(
        "before => document.querySelector('.fsl-prototype-board .point').getAttribute('aria-label') !== before",
        arg=label,
    )


@pytest.mark.parametrize(
    "name",
    ["EpisodeExplorer", "PrototypeBoard", "InnerLoopStepper", "OuterLoopMicroscope", "LabelFlow", "GoalWalk"],
)
def test_every_slider_has_a_name(scratch_notebook: Scratch, name: str):
    page = scratch_notebook("sliders", show(name))
    page.wait_for_selector(".noUi-handle")
    page.wait_for_function(
        "() => [...document.querySelectorAll('.noUi-handle')].every(e => e.getAttribute('aria-label'))"
    )
    assert page.evaluate("() => [...document.querySelectorAll('.noUi-handle')].length") > 0


def test_the_stepper_steps(scratch_notebook: Scratch):
    page = scratch_notebook("stepper", show("InnerLoopStepper"))
    status = ".fsl-inner-loop-stepper [role=status]"
    page.wait_for_selector(status)
    said = page.inner_text(status)
    for button in ("Step", "10 steps", "New task"):
        page.locator(".fsl-inner-loop-stepper").get_by_role("button", name=button, exact=True).click()
        before, said = said, wait_for_change(page, status, said)
        assert said != before
    screenshot(page, "inner_loop_stepper", whole=True)


def test_the_microscope_follows_the_start(scratch_notebook: Scratch):
    page = scratch_notebook("microscope", show("OuterLoopMicroscope"))
    table = ".fsl-outer-loop-microscope table"
    page.wait_for_selector(table)
    before = page.inner_text(table)
    page.locator(".fsl-outer-loop-microscope .noUi-handle").first.focus()
    page.keyboard.press("ArrowLeft")
    assert wait_for_change(page, table, before) != before
    screenshot(page, "outer_loop_microscope", whole=True)


def test_labels_flow_with_other_sliders(scratch_notebook: Scratch):
    page = scratch_notebook("flow", show("LabelFlow"))
    status = ".fsl-label-flow [role=status]"
    page.wait_for_selector(status)
    before = page.inner_text(status)
    page.locator(".fsl-label-flow .noUi-handle").first.focus()
    page.keyboard.press("ArrowRight")
    assert wait_for_change(page, status, before) != before
    screenshot(page, "label_flow")


def test_a_goal_moves_with_its_slider(scratch_notebook: Scratch):
    page = scratch_notebook("goal", show("GoalWalk"))
    status = ".fsl-goal-walk [role=status]"
    page.wait_for_selector(status)
    before = page.inner_text(status)
    page.locator(".fsl-goal-walk .noUi-handle").first.focus()
    page.keyboard.press("ArrowRight")
    assert wait_for_change(page, status, before) != before


def test_ticking_an_attribute_changes_what_is_asked_for(scratch_notebook: Scratch):
    page = scratch_notebook("attributes", show("AttributeBoard"))
    page.wait_for_selector(".fsl-attribute-board input[type=checkbox]")
    before = page.inner_text(".fsl-attribute-board")
    assert "has a loop: true of" in before
    page.locator(".fsl-attribute-board input[type=checkbox]:checked").first.click()
    page.wait_for_function("old => document.querySelector('.fsl-attribute-board').innerText !== old", arg=before)


def test_a_support_picture_can_be_taken_away_and_renamed(scratch_notebook: Scratch):
    page = scratch_notebook("support", show("SupportBoard"))
    status = ".fsl-support-board [role=status]"
    page.wait_for_selector(status)
    before = page.inner_text(status)
    assert before.startswith("0 of 12 support pictures taken away, 0 with another label")
    page.locator(".fsl-support-board select").nth(1).select_option(label="taken away")
    after = wait_for_change(page, status, before)
    assert after.startswith("1 of 12 support pictures taken away, 0 with another label")
    page.locator(".fsl-support-board select").first.select_option(label="B")
    assert wait_for_change(page, status, after).startswith("1 of 12 support pictures taken away, 1 with another label")
    screenshot(page, "support_board")


def test_work_is_saved_to_a_file_and_comes_back(scratch_notebook: Scratch, tmp_path):
    code = (
        "from fsl_classroom import check\nfrom fsl_classroom.widgets import WorkKeeper\n"
        "def accuracy(predictions, labels):\n    return (predictions == labels).double().mean().item()\n"
        "check('00.1', accuracy)\nWorkKeeper()"
    )
    page = scratch_notebook("keeper", code)
    with page.expect_download() as started:
        page.click(".fsl-work-keeper .fsl-save")
    started.value.save_as(tmp_path / "work.json")
    saved = json.loads((tmp_path / "work.json").read_text(encoding="utf-8"))
    assert saved["exercises"]["00.1"]["passed"] is True
    assert saved["exercises"]["00.1"]["answer"] == code

    saved["exercises"]["05.1"] = saved["exercises"]["00.1"] | {"title": "Prototypes", "answer": "x = 1"}
    (tmp_path / "work.json").write_text(json.dumps(saved), encoding="utf-8")
    page.set_input_files(".fsl-work-keeper input[type=file]", tmp_path / "work.json")
    page.wait_for_function("() => document.querySelector('.fsl-status').innerText.includes('2 exercises brought back')")
    screenshot(page, "work_keeper")
