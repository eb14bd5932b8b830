"""The page to try, opened from a folder: no server, no kernel, no network."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from playwright.sync_api import Browser, Page

from fsl_course import load_glyphs, pretrained
from tests.browser.conftest import SCREENSHOTS
from tests.browser.test_widgets import ANOTHER_RING, RING, draw
from tools.book import try_page, vendor
from tools.book.build import ROOT

pytestmark = pytest.mark.browser
Opener = Callable[..., Page]
PAD, VERDICT = "#pad canvas", "#verdict"
EMBEDDED = """async ([name, pictures]) => {
    const engine = await fsl[name]();
    const rows = [];
    for (const picture of pictures) rows.push([...await engine.embed(Uint8Array.from(picture))]);
    return rows;
}"""
SHARES = "([rows, examples]) => rows.map((row) => fsl.shares(row, examples.map(fsl.mean)))"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the page alone."""
    if not vendor.available(ROOT):
        pytest.skip("the page needs npm, or its packages in .cache/npm; neither is there")
    pytest.importorskip("onnxscript", reason='the page needs pip install "fsl-course[deploy]"')
    folder = tmp_path_factory.mktemp("site")
    try_page.write(ROOT, folder)
    return folder


@pytest.fixture
def open_page(site: Path, browser: Browser) -> Iterator[Opener]:
    """Opens the page and waits for its first answer. It may ask for files of its folder and for nothing else."""
    contexts, asked = [], []

    def opener(folder: Path = site, wait: bool = True, **options: Any) -> Page:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}} | options)
        contexts.append(context)
        context.set_offline(True)
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: asked.append(f"error: {error}"))
        page.goto((folder / "try.html").as_uri())
        if wait:
            page.evaluate("fsl.page.ready")
        return page

    yield opener
    for context in contexts:
        context.close()
    assert asked
    assert [url for url in asked if not url.startswith(("file:///", "data:"))] == []


def picture(page: Page, name: str) -> None:
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)


def answer(page: Page, name: str) -> None:
    """Waits until the page says this name."""
    page.wait_for_function("name => document.querySelector('#verdict strong')?.textContent === name", arg=name)


@pytest.mark.parametrize("engine", ["plainEngine", "onnxEngine"])
def test_fifty_drawings_get_the_embeddings_and_the_answers_of_pytorch(open_page: Opener, engine: str):
    """Ten letters of unseen scripts, five drawings each: the first two teach, the other three are asked."""
    images = load_glyphs().split("test").images[5:405:40, :5]
    learner = pretrained("prototypical", "glyphs")
    with torch.no_grad():
        expected = learner.embed(images.flatten(0, 1).float() / 255)
    page = open_page()
    got = torch.tensor(page.evaluate(EMBEDDED, [engine, images.reshape(50, 784).tolist()]))
    assert float((got - expected).abs().max()) < 1e-4

    by_letter = got.view(10, 5, 64)
    shares = torch.tensor(page.evaluate(SHARES, [by_letter[:, 2:].flatten(0, 1).tolist(), by_letter[:, :2].tolist()]))
    rows, labels = expected.view(10, 5, 64), torch.arange(10)
    scores = learner.score(rows[:, :2].flatten(0, 1), labels.repeat_interleave(2), rows[:, 2:].flatten(0, 1), 10)
    assert torch.equal(shares.argmax(1), scores.argmax(1))
    assert torch.allclose(shares, scores.softmax(-1), atol=1e-3)
    assert float((shares.argmax(1) == labels.repeat_interleave(3)).double().mean()) > 0.9


def test_the_first_look_shows_an_answer_and_its_reasons(open_page: Opener):
    page = open_page()
    answer(page, "cup")
    assert page.locator("#characters li").count() == 5
    assert page.locator("#nearest li").count() == 3
    assert "97.5 %" in page.inner_text("#card")
    page.evaluate("fsl.page.loadRuntime().then(() => 0)")
    assert page.evaluate("fsl.page.engine()") == "ONNX Runtime"
    assert page.text_content("#onnx-state") == "answers now"
    assert page.text_content("#plain-ms").endswith(" ms")
    picture(page, "try_desktop")


def test_a_thing_that_is_drawn_once_with_the_mouse_is_found_again(open_page: Opener):
    page = open_page()
    draw(page, PAD, RING)  # the drawing that was there makes room
    page.click("#new")
    page.keyboard.type("ring")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.tagName") == "CANVAS"  # ready to draw it again
    draw(page, PAD, ANOTHER_RING)
    answer(page, "ring")
    page.get_by_role("button", name="Keep my drawing as ring").click()
    page.wait_for_function("document.querySelectorAll('#characters li')[5].querySelectorAll('.example').length === 2")
    assert page.inner_text(VERDICT) == "Draw something on the pad."
    page.get_by_role("button", name="Remove drawing 1 of ring").click()
    page.get_by_role("button", name="Remove drawing 1 of ring").click()
    assert page.locator("#characters li").count() == 5


def test_limits_are_ten_things_of_five_drawings(open_page: Opener):
    page = open_page()
    for count in range(6, 11):
        draw(page, PAD, RING)
        page.click("#new")
        page.wait_for_function("n => document.querySelectorAll('#characters li').length === n", arg=count)
    for count in range(2, 6):
        draw(page, PAD, RING)
        page.locator("#characters li").nth(9).locator(".keep").click()
        page.wait_for_function("n => document.querySelectorAll('.example').length === 9 + n", arg=count)
    draw(page, PAD, RING)
    page.wait_for_function("document.querySelector('#characters li .keep:not(:disabled)') !== null")
    assert page.locator("#characters li").nth(9).locator(".keep").is_disabled()
    assert page.locator("#new").is_disabled()
    page.click("#empty")
    page.wait_for_function("document.querySelectorAll('#characters li').length === 0")
    page.click("#letters")
    answer(page, "Tamil ma")


def test_everything_works_with_the_keyboard_alone(open_page: Opener):
    page = open_page()

    def reach(selector: str) -> None:
        for _ in range(60):
            if page.evaluate("selector => document.activeElement.matches(selector)", selector):
                return
            page.keyboard.press("Tab")
        raise AssertionError(f"Tab does not reach {selector}")

    reach(PAD)
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    for key in ["Space", *["ArrowRight"] * 6, *["ArrowDown"] * 6, *["ArrowLeft"] * 6, "Space"]:
        page.keyboard.press(key)
    page.wait_for_function("document.querySelector('#new:not(:disabled)') !== null")
    reach("#new")
    page.keyboard.press("Enter")
    page.wait_for_function("document.activeElement.matches('#characters input')")
    page.keyboard.type("corner")
    page.keyboard.press("Enter")
    for key in ["Space", *["ArrowRight"] * 7, *["ArrowDown"] * 5, *["ArrowLeft"] * 7, "Space"]:
        page.keyboard.press(key)
    answer(page, "corner")
    reach("#characters input")
    page.keyboard.type("mug")
    page.keyboard.press("Tab")
    page.wait_for_function("[...document.querySelectorAll('.keep')].some((e) => e.ariaLabel.endsWith(' mug'))")
    assert page.evaluate("document.activeElement.className") == "keep"  # the list was built anew around the focus


def test_every_control_has_a_name(open_page: Opener):
    page = open_page()
    nameless = """[...document.querySelectorAll('button, input, canvas, img, a')].filter((e) =>
        !e.closest('[aria-hidden]') && !e.getAttribute('aria-label') && !e.textContent.trim() && !e.hasAttribute('alt'))
        .map((e) => e.outerHTML)"""
    assert page.evaluate(nameless) == []
    assert page.locator("#verdict").get_attribute("role") == "status"


def test_a_telephone_gets_the_small_program_and_needs_no_sideways_scrolling(open_page: Opener):
    phone = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True, "device_scale_factor": 2}
    page = open_page(**phone)
    answer(page, "cup")
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    box = page.locator(VERDICT).bounding_box()
    assert box["y"] + box["height"] < 844  # drawing and answer are seen together
    page.wait_for_timeout(1500)
    assert page.evaluate("fsl.page.engine()") == "plain JavaScript"
    assert page.locator("script[src*=runtime]").count() == 0
    picture(page, "try_phone")


def test_the_dark_theme_keeps_white_paper(open_page: Opener):
    page = open_page(color_scheme="dark")
    ground, paper = (
        page.evaluate("selector => getComputedStyle(document.querySelector(selector)).backgroundColor", selector)
        for selector in ("body", PAD)
    )
    assert max(map(int, ground[4:-1].split(","))) < 60
    assert paper == "rgb(255, 255, 255)"
    picture(page, "try_dark")


def test_troubles_are_told_in_words(open_page: Opener, site: Path, tmp_path: Path):
    shutil.copytree(site, tmp_path / "lacking")
    (tmp_path / "lacking" / "_static" / "try" / "runtime.js").unlink()
    page = open_page(tmp_path / "lacking")
    page.evaluate("fsl.page.loadRuntime()")
    page.wait_for_function("document.querySelector('#apart').textContent.includes('goes on answering')")
    assert "runtime.js is missing" in page.text_content("#apart")
    answer(page, "cup")
    (tmp_path / "lacking" / "_static" / "try" / "model.js").unlink()
    page = open_page(tmp_path / "lacking")
    assert "could not be started" in page.inner_text("#trouble")
    page = open_page(wait=False, java_script_enabled=False)
    assert "switched off in your browser" in page.inner_text("noscript")
