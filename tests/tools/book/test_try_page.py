"""tools/book/try_page.py: what the page computes in JavaScript is what the notebook and PyTorch compute."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fsl_classroom.widgets.sketch_pad import check_strokes, rasterise
from fsl_course import load_glyphs, pretrained
from tools.book import try_page
from tools.book.try_page import ROOT, SOURCE

Strokes = list[list[list[float]]]


@pytest.fixture(scope="module")
def encoder() -> bytes:
    pytest.importorskip("onnxscript", reason='the page needs pip install "fsl-course[deploy]"')
    return try_page.encoder()


def in_node(code: str, given: Any, folder: Path) -> Any:
    """Runs code after the scripts of the page, with `given` at hand -> what it returns."""
    if shutil.which("node") is None:
        pytest.skip("Node.js is not here, and these tests run the page's scripts in it")
    scripts = [(SOURCE / f"{name}.js").read_text(encoding="utf-8") for name in ("paper", "net", "engines")]
    (folder / "given.json").write_text(json.dumps(given))
    read = f"const given = JSON.parse(require('fs').readFileSync({json.dumps(str(folder / 'given.json'))}));"
    (folder / "run.js").write_text("\n".join([*scripts, read, f"console.log(JSON.stringify((() => {{ {code} }})()));"]))
    done = subprocess.run(["node", folder / "run.js"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def drawings(count: int) -> list[Strokes]:
    """Pen strokes of letters from all over Glyphs, a dot, a flat line, and a drawing in a corner of the pad."""
    drawn = np.load(ROOT / "data" / "glyphs_strokes.npz")
    points, strokes, letters = drawn["points"] / 255, drawn["stroke_offsets"], drawn["letter_offsets"]
    found = []
    for letter in np.random.default_rng(0).choice(len(letters) - 1, count, replace=False):
        pieces = range(letters[letter], letters[letter + 1])
        found.append([points[strokes[p] : strokes[p + 1]].tolist() for p in pieces])
    return [*found, [[[0.5, 0.5]]], [[[0.2, 0.2], [0.8, 0.2]]], [[[0.9, 0.9], [0.97, 0.99], [0.99, 0.9]]]]


def test_the_page_centres_and_inks_as_the_notebook_does(tmp_path: Path):
    """Pillow rounds in 8 bits between its steps, so here and there a pixel is one grey level off."""
    given = drawings(80)
    code = "return given.map((strokes) => [...fsl.rasterise(strokes)]);"
    got = torch.tensor(in_node(code, given, tmp_path)).view(-1, 28, 28)
    expected = torch.cat([rasterise(strokes) for strokes in given]).int()
    apart = (got - expected).abs()
    assert int(apart.max()) <= 51
    assert int((apart > 0).sum()) < 0.01 * int((expected > 0).sum())
    assert set(got.unique().tolist()) <= {0, 51, 102, 153, 204, 255}
    assert in_node("return [...fsl.rasterise([])];", [], tmp_path) == [0] * 784


def test_the_plain_net_gives_the_embeddings_of_pytorch(encoder: bytes, tmp_path: Path):
    pictures = load_glyphs().split("test").images[:20, 7]
    (tmp_path / "encoder.onnx").write_bytes(encoder)
    code = (
        "const net = fsl.plainNet(new Uint8Array(require('fs').readFileSync(given.path)));"
        "return { rows: given.pixels.map((p) => [...net.embed(Uint8Array.from(p))]), about: net.about };"
    )
    given = {"path": str(tmp_path / "encoder.onnx"), "pixels": pictures.flatten(1).tolist()}
    got = in_node(code, given, tmp_path)
    with torch.no_grad():
        expected = pretrained("prototypical", "glyphs").embed(pictures.float() / 255)
    assert float((torch.tensor(got["rows"]) - expected).abs().max()) < 1e-4
    card = json.loads((ROOT / "data" / "checkpoints" / "prototypical-glyphs.json").read_text(encoding="utf-8"))
    assert got["about"]["card"] == card


def test_shares_are_the_softmax_of_the_learner(tmp_path: Path):
    rows = torch.randn(9, 64, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 0, 0, 1, 2, 2, 1, 0])
    learner = pretrained("prototypical", "glyphs")
    expected = learner.score(rows[:8], labels, 0.3 * rows[8:], 3).softmax(-1)[0]
    given = {"rows": [rows[:8][labels == k].tolist() for k in range(3)], "query": (0.3 * rows[8]).tolist()}
    got = in_node("return fsl.shares(given.query, given.rows.map(fsl.mean));", given, tmp_path)
    assert torch.allclose(torch.tensor(got), expected, atol=1e-5)


def test_another_net_is_refused_in_words(tmp_path: Path):
    onnx = pytest.importorskip("onnx", reason='needs pip install "fsl-course[deploy]"')
    node = onnx.helper.make_node("Gemm", ["a", "b"], ["c"])
    graph = onnx.helper.make_graph([node], "g", [], [])
    (tmp_path / "other.onnx").write_bytes(onnx.helper.make_model(graph).SerializeToString())
    code = "try { fsl.plainNet(new Uint8Array(require('fs').readFileSync(given))); } catch (error) { return error.message; }"
    assert "knows no step Gemm" in in_node(code, str(tmp_path / "other.onnx"), tmp_path)


@pytest.mark.parametrize("name", ["things", "letters"])
def test_the_page_begins_with_drawings_that_the_learner_names_rightly(name: str):
    found = try_page.examples(ROOT)[name]
    strokes = [character["strokes"] for character in found["characters"]]
    pictures = torch.stack([rasterise(check_strokes(one)) for one in [*strokes, found["query"]]]).float() / 255
    with torch.no_grad():
        rows = pretrained("prototypical", "glyphs").embed(pictures)
    shares = pretrained("prototypical", "glyphs").score(rows[:5], torch.arange(5), rows[5:], 5).softmax(-1)[0]
    assert float(shares[{"things": 0, "letters": 2}[name]]) > 0.9
    assert len({character["name"] for character in found["characters"]}) == 5


def test_the_letters_are_of_a_script_that_no_training_has_seen():
    glyphs = load_glyphs().split("test")
    assert set(try_page._LETTERS) <= set(glyphs.class_names)


def test_the_pad_is_the_notebooks_pad(tmp_path: Path):
    script = try_page.pad(ROOT)
    assert "export" not in script
    source = (ROOT / "fsl_classroom" / "widgets" / "sketch_pad.js").read_text(encoding="utf-8")
    assert source.split("export default")[0] in script
    (tmp_path / "fsl_classroom" / "widgets").mkdir(parents=True)
    (tmp_path / "fsl_classroom" / "widgets" / "sketch_pad.js").write_text("export default render;")
    with pytest.raises(try_page.TryPageError, match="no longer ends"):
        try_page.pad(tmp_path)


def test_nothing_in_the_page_comes_from_elsewhere():
    for path in SOURCE.iterdir():
        assert not re.search(
            r"https?://|\bfetch\(|XMLHttpRequest|sendBeacon|WebSocket", path.read_text(encoding="utf-8")
        ), path
    page = (SOURCE / "try.html").read_text(encoding="utf-8")
    assert "connect-src 'none'" in page
    asked = re.findall(r'(?:src|href)="(_static/try/[^"]+)"', page)
    assert {Path(name).name for name in asked} == {*try_page._SCRIPTS, "pad.js", "examples.js", "model.js"}


def test_an_encoder_that_cannot_be_exported_is_told_with_its_reason(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(try_page, "METHOD", "maml")
    with pytest.raises(try_page.TryPageError, match="maml does more than compare embeddings"):
        try_page.encoder()


def test_the_picture_of_the_readme_needs_chromium(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    pytest.importorskip("playwright", reason="the picture is taken by playwright")
    monkeypatch.setattr("tools.setup.chromium.find", lambda: None)
    with pytest.raises(try_page.TryPageError, match="no Chromium"):
        try_page.picture(tmp_path / "try.html", tmp_path / "try.png")


def test_the_picture_of_the_readme_is_small():
    assert (ROOT / "docs" / "try.png").stat().st_size < 60_000
