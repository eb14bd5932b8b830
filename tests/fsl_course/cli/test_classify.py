"""The command `classify`."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import jsonschema
import pytest
from PIL import Image

from fsl_course.__main__ import main
from fsl_course.classifier import FewShotClassifier
from fsl_course.weights.checkpoints import pretrained, save_learner
from fsl_course.weights.learners import make
from tests.fsl_course.cli.runs import own_pictures
from tests.fsl_course.test_classifier import SHAPES, drawing

ROW = {
    "type": "object",
    "required": ["picture", "name", "weights", "probabilities", "nearest"],
    "additionalProperties": False,
    "properties": {
        "picture": {"type": "string"},
        "name": {"type": ["string", "null"]},
        "weights": {"type": "string"},
        "probabilities": {"type": "object", "additionalProperties": {"type": "number", "minimum": 0, "maximum": 1}},
        "nearest": {
            "type": "array",
            "maxItems": 3,
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["picture", "name", "index", "distance"],
                "additionalProperties": False,
                "properties": {
                    "picture": {"type": ["string", "null"]},
                    "name": {"type": "string"},
                    "index": {"type": "integer", "minimum": 0},
                    "distance": {"type": "number", "minimum": 0},
                },
            },
        },
    },
}


def test_every_picture_gets_a_name_its_probabilities_and_the_nearest_examples(drawn, capsys):
    assert main(["classify", "prototypical", "--support", "mine", "new"]) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert err == ""
    assert lines[0] == "prototypical-glyphs: 3 classes, examples of each: 2 to 4, inverted"
    for number, shape in enumerate(("bar", "cross", "ring")):
        name, shares, near = lines[1 + 3 * number : 4 + 3 * number]
        assert name == f"new/{shape}.jpg: {shape}".replace("/", os.sep)
        assert shares.startswith(f"    {shape} ")
        assert re.fullmatch(rf"    nearest: {shape}/\d\.png \([\d.e-]+\), .*", near)


def test_json_is_one_object_a_line_and_says_what_the_classifier_says(drawn, capsys):
    assert main(["classify", "prototypical", "--support", "mine", "--json", "new/ring.jpg", "new/bar.jpg"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    for row in rows:
        jsonschema.validate(row, ROW)
        assert sum(row["probabilities"].values()) == pytest.approx(1)
    assert [(row["picture"], row["name"]) for row in rows] == [("new/ring.jpg", "ring"), ("new/bar.jpg", "bar")]
    files = sorted((drawn / "mine").rglob("*.png"))
    clf = FewShotClassifier(pretrained("prototypical", "glyphs")).fit(files, [file.parent.name for file in files])
    assert list(rows[0]["probabilities"].values()) == pytest.approx(clf.predict_proba(["new/ring.jpg"])[0].tolist())
    assert rows[0]["nearest"][0]["picture"] == str(files[clf.nearest(["new/ring.jpg"])[0][0].index])


class _Page(HTMLParser):
    """Collects the tags of a page, and notices those that are never closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open, self.images, self.headings, self.words = [], [], [], []

    def handle_starttag(self, tag, attrs):
        if tag == "img":
            self.images.append(dict(attrs))
        elif tag != "meta":
            self.open.append(tag)
        assert not {"src", "href"} & {name for name, value in attrs if not value.startswith("data:")}

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)


def test_the_page_needs_no_other_file_and_every_picture_has_words(drawn, capsys):
    (drawn / "mine" / "ring").rename(drawn / "mine" / "<b>ring & co")
    command = ["classify", "prototypical", "--support", "mine", "new", "--html", "out/page.html", "--none-of-these"]
    assert main(command) == 0
    text = (drawn / "out" / "page.html").read_text(encoding="utf-8")
    page = _Page()
    page.feed(text)
    assert page.open == []
    assert "<b>" not in text
    for kind, words in (("seen", ", as the network sees it"), ("file", "")):
        images = [image for image in page.images if image["class"] == kind]
        assert len(images) == 3 * (1 + 3) + 9  # queries, their nearest examples, all examples
        for image in images:
            picture = Image.open(io.BytesIO(base64.b64decode(image["src"].partition("base64,")[2])))
            assert (picture.size == (28, 28)) == (kind == "seen")
            assert image["alt"].startswith(("the picture ", "example of "))
            assert image["alt"].endswith(words)
    printed = re.findall(r"^new.*: (.*)$", capsys.readouterr().out, re.MULTILINE)
    assert page.headings == [*printed, "The examples"]
    assert "%" in "".join(page.words)
    assert "negatives of the files" in text


def test_pictures_of_no_class_get_no_name_if_asked(drawn, capsys):
    Image.new("L", (40, 40), 255).save("new/empty.png")
    words = ["classify", "prototypical", "--support", "mine", "new/empty.png", "--json"]
    assert main(words) == 0
    assert json.loads(capsys.readouterr().out)["name"] is not None
    assert main([*words, "--none-of-these"]) == 0
    assert json.loads(capsys.readouterr().out)["name"] is None
    assert main([*words[:-1], "--none-of-these"]) == 0
    assert "empty.png: none of these" in capsys.readouterr().out


def test_weights_and_examples_travel_in_one_file(drawn, capsys):
    words = ["new", "--json"]
    assert (
        main(["classify", "prototypical", "--support", "mine", "--none-of-these", "--save", "mine.safetensors", *words])
        == 0
    )
    first = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    (drawn / "mine").rename(drawn / "gone")
    assert main(["classify", "mine.safetensors", *words]) == 0
    again = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    for before, after in zip(first, again, strict=True):
        assert after.pop("weights") == "mine"
        assert before.pop("weights") == "prototypical-glyphs"
        assert after == before
    assert FewShotClassifier.load("mine.safetensors").threshold_ is not None


def test_one_example_a_class_is_enough(drawn, capsys):
    for shape in SHAPES:
        for file in list((drawn / "mine" / shape).iterdir())[1:]:
            file.unlink()
    assert main(["classify", "matching", "--support", "mine", "new/bar.jpg"]) == 0
    assert "examples of each: 1, inverted" in capsys.readouterr().out
    assert main(["classify", "matching", "--support", "mine", "new/bar.jpg", "--none-of-these"]) == 1
    assert "every class needs at least two. There is only one of bar, cross, ring" in capsys.readouterr().err


def test_size_channels_and_inversion_are_those_of_the_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    own_pictures(tmp_path / "mine", classes=3)
    settings = {"width": 4, "in_channels": 3, "size": 32}
    about = {"method": "prototypical", "settings": settings, "pictures": {"inverted": True}}
    save_learner("runs/mine.safetensors", make("prototypical", **settings), about)
    assert main(["classify", "runs", "--support", "mine", "mine/class0/0.png", "--save", "all.safetensors"]) == 0
    clf = FewShotClassifier.load("all.safetensors")
    assert list(clf.support_images_.shape) == [18, 3, 32, 32]
    assert clf.inverted_
    assert ", inverted" in capsys.readouterr().out
    assert main(["classify", "runs", "--support", "mine", "mine/class0/0.png", "--invert", "no"]) == 0
    assert "inverted" not in capsys.readouterr().out


def test_methods_with_a_head_take_weights_for_that_number_of_classes(drawn, capsys):
    assert main(["classify", "maml", "--support", "mine", "new"]) == 1
    error = capsys.readouterr().err
    assert error.startswith(
        "error: maml serves as many classes as its weights were made for, and --support mine has 3: "
    )
    assert "there is maml-glyphs-5w1s, maml-glyphs-5w5s. Or take" in error
    for number in range(2):
        (drawn / "mine" / f"shape{number}").mkdir()
        drawing("bar", 5 * number).rotate(45 + number, fillcolor=255).save(drawn / "mine" / f"shape{number}" / "a.png")
    assert main(["classify", "maml", "--support", "mine", "new"]) == 0
    assert capsys.readouterr().out.startswith("maml-glyphs-5w1s: 5 classes, examples of each: 1 to 4")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["prototypical", "new"], "--support is missing: name a folder"),
        (["prototypical", "--support", "nowhere", "new"], "--support takes a folder .*; nowhere is no folder"),
        (["prototypical", "--support", "new", "new"], "--support: .*belongs to no class"),
        (["prototypical", "--support", "one", "new"], "--support: .*only one class"),
        (["prototypical", "--support", "mine", "gone.png"], "no picture gone.png"),
        (["prototypical", "--support", "mine", "hollow"], "the folder hollow holds no pictures"),
        (["prototypical", "--support", "mine", "text.png"], "text.png cannot be read as a picture"),
        (["prototypcal", "--support", "mine", "new"], 'Did you mean "prototypical'),
        (["prototypical", "--trained-on", "glyps", "--support", "mine", "new"], 'Did you mean "prototypical-glyphs"'),
        (["gone.safetensors", "--support", "mine", "new"], "no checkpoint at gone.safetensors"),
        (["runs/gone", "--support", "mine", "new"], "there is no folder runs/gone"),
        (["bare.safetensors", "new"], "holds a learner without support"),
        (
            ["bare.safetensors", "new", "--invert", "yes", "--device", "cpu"],
            "--invert, --device goes with --support FOLDER",
        ),
        (["prototypical", "--support", "mine", "new", "--device", "tpu"], "no device 'tpu'"),
        (["prototypical", "--support", "mine", "new", "--html", "text.png/page.html"], "text.png"),
    ],
)
def test_errors_are_one_line_and_status_1(words, message, drawn, capsys):
    (drawn / "one" / "bar").mkdir(parents=True)
    drawing("bar").save(drawn / "one" / "bar" / "a.png")
    (drawn / "hollow").mkdir()
    (drawn / "text.png").write_text("hello")
    save_learner(
        "bare.safetensors", make("prototypical", width=4), {"method": "prototypical", "settings": {"width": 4}}
    )
    assert main(["classify", *words]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert re.search(message, error)
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["prototypical", "--support", "mine"], "the following arguments are required: PICTURE"),
        (["prototypical", "--support", "", "new"], "--support: must be a name"),
        (["prototypical", "--support", "mine", "new", "--invert", "maybe"], "--invert: must be one of auto, yes, no"),
        (["prototypical", "--suport", "mine", "new"], 'Did you mean "--support"'),
    ],
)
def test_mistakes_in_the_options_are_status_2(words, message, drawn, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["classify", *words])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_a_terminal_needs_nothing_but_the_command(drawn):
    command = [sys.executable, "-m", "fsl_course", "classify", "siamese", "--support", "mine", "new/ring.jpg", "--json"]
    root = str(Path(__file__).resolve().parents[3])
    environment = os.environ | {"PYTHONPATH": root, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=drawn, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    row = json.loads(done.stdout)
    jsonschema.validate(row, ROW)
    assert row["name"] == "ring"
