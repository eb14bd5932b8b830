"""Your own folder on the command line: its form travels with the weights, and what the data does not allow is said."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from fsl_course.__main__ import main
from fsl_course.weights.checkpoints import load_learner
from tests.fsl_course.cli.runs import own_pictures

pytestmark = pytest.mark.usefixtures("few_episodes")
QUICK = ["--steps", "1", "--width", "4", "--quiet"]


def drawings(folder: Path, classes: int = 10, pictures: int = 6, paper: int = 255) -> Path:
    """Dark strokes on light paper, or with paper=0 the other way round; each class has a place of its own."""
    for c in range(classes):
        (folder / f"class{c}").mkdir(parents=True)
        for n in range(pictures):
            picture = Image.new("L", (20, 20), paper)
            picture.paste(255 - paper, (c, n, c + 6, n + 9))
            picture.save(folder / f"class{c}" / f"{n}.png")
    return folder


def trained(tmp_path: Path, *words: str, data: Path | None = None, method: str = "prototypical") -> tuple[Path, dict]:
    """A run on a folder -> its folder and card."""
    data = data or drawings(tmp_path / "mine")
    assert (
        main(["train", method, "--data", str(data), "--way", "2", *words, *QUICK, "--out", str(tmp_path / "run")]) == 0
    )
    return tmp_path / "run", json.loads(next((tmp_path / "run").glob(f"{method}-{data.name}*.json")).read_text())


def test_what_the_weights_were_trained_on_is_what_they_are_tested_on(tmp_path, monkeypatch):
    run, card = trained(
        tmp_path, "--size", "32", "--channels", "3", "--invert", "yes", data=own_pictures(tmp_path / "c")
    )
    about = load_learner(run / "prototypical-c.safetensors")[1]
    assert about["pictures"] == card["pictures"] == {"size": 32, "channels": 3, "inverted": True, "range": "[0, 1]"}
    assert {split: len(names) for split, names in card["class_names"].items()} == {"train": 6, "val": 2, "test": 2}
    seen = []
    monkeypatch.setattr("fsl_course.data.load_folder", lambda *form, invert: seen.append((*form, invert)) or 1 / 0)
    for more, form in (([], (32, 3, True)), (["--size", "40", "--invert", "no"], (40, 3, False))):
        with pytest.raises(ZeroDivisionError):
            main(["evaluate", str(run), "--data", str(tmp_path / "c"), *more])
        assert seen[-1] == (str(tmp_path / "c"), *form)


def test_a_run_is_tested_on_the_folder_that_it_was_trained_on(tmp_path, capsys):
    run, _ = trained(tmp_path)
    words = ["evaluate", str(run), "--way", "2", "--episodes", "4", "--json"]
    capsys.readouterr()
    assert main(words) == 0
    assert json.loads(capsys.readouterr().out)["data"] == "mine/test"
    (tmp_path / "mine").rename(tmp_path / "moved")
    for damage in (None, "[]", "no JSON"):
        if damage is not None:
            next(run.glob("*.json")).write_text(damage)
        assert main(words) == 1
        assert "which is no folder here: give --data FOLDER" in capsys.readouterr().err
    assert main([*words, "--data", str(tmp_path / "moved")]) == 0


@pytest.mark.parametrize(("paper", "invert"), [(255, "yes"), (0, "no")])
def test_inversion_is_decided_for_the_set_and_written_into_the_card(tmp_path, paper, invert):
    _, card = trained(tmp_path, data=drawings(tmp_path / "mine", paper=paper))
    assert f"--size 28 --channels 1 --invert {invert} " in card["command"]
    assert card["options"]["invert"] == invert
    assert card["pictures"]["inverted"] is (invert == "yes")


def test_default_queries_are_what_fits_and_the_test_is_that_of_the_card(tmp_path, capsys):
    run, card = trained(tmp_path, "--shot", "3")
    assert card["options"]["query"] == 3
    assert (
        main(["train", "prototypical", "--data", str(tmp_path / "mine"), *QUICK, "--out", str(tmp_path / "all")]) == 0
    )
    assert (
        "--way 6 --shot 1 --query 5 "
        in json.loads((tmp_path / "all" / "prototypical-mine.json").read_text())["command"]
    )
    capsys.readouterr()
    words = ["evaluate", str(run), "--data", str(tmp_path / "mine"), "--way", "2", "--episodes", "4", "--json"]
    for shot, query in (("1", 5), ("5", 1)):
        assert main([*words, "--shot", shot]) == 0
        assert json.loads(capsys.readouterr().out)["query"] == query


def test_tests_that_the_folder_is_too_small_for_are_named_with_the_reason(tmp_path, capsys):
    _, card = trained(tmp_path)
    assert card["test"] == []
    assert card["test_left_out"] == [f"{task} left out: the test split has 2 classes" for task in
                                     ("5-way 1-shot", "5-way 5-shot", "20-way 1-shot", "20-way 5-shot")]  # fmt: skip
    assert "\n  5-way 1-shot left out: the test split has 2 classes\n" in capsys.readouterr().out
    data = drawings(tmp_path / "more", classes=26, pictures=4)
    _, card = trained(tmp_path, data=data)
    assert [(row["way"], row["shot"], row["query"]) for row in card["test"]] == [(5, 1, 3)]
    assert "5-way 5-shot left out: class" in card["test_left_out"][0]
    assert "has 4 pictures" in card["test_left_out"][0]


def test_a_method_with_a_head_hears_of_few_classes_and_of_no_validation(tmp_path, capsys):
    trained(tmp_path, "--way", "3", "--set", "inner_steps=1", method="maml")
    error = capsys.readouterr().err
    assert "note: own pictures are read in 28 x 28 pixels, grey, inverted: --size, --channels, --invert." in error
    assert "note: 6 training classes are few for maml" in error
    assert "have at least 15, add --rotations, or take prototypical" in error
    assert "note: no validation, so the last weights are kept and not the best: the val split has 2 classes." in error


def test_a_metric_method_that_can_be_validated_hears_nothing_of_the_kind(tmp_path, capsys):
    trained(tmp_path)
    error = capsys.readouterr().err
    assert error.count("note:") == 1
    assert "own pictures are read" in error


def test_training_classes_in_a_test_are_named(tmp_path, capsys):
    run, card = trained(tmp_path)
    capsys.readouterr()
    words = ["evaluate", str(run), "--data", str(tmp_path / "mine"), "--way", "2", "--episodes", "4"]
    assert main(words) == 0
    assert capsys.readouterr().err == ""
    for split, of in (("all", 10), ("train", 6)):
        assert main([*words, "--split", split]) == 0
        first = card["class_names"]["train"][0]
        assert (
            f"trained on 6 of these {of} classes, such as {first}, so the accuracy flatters" in capsys.readouterr().err
        )
    assert main(["evaluate", "prototypical", "--split", "all", "--episodes", "2"]) == 0
    assert "note: the weights were trained on classes of this test so" in capsys.readouterr().err
    assert main(["evaluate", "prototypical", "--data", "icons", "--split", "all", "--episodes", "2"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--way", "7"], "--way 7 needs 7 classes, and mine/test has 2: give --way 2, --split all, or add classes"),
        (
            ["--way", "11", "--split", "all"],
            "--way 11 needs 11 classes, and mine has 10: give --way 10, or add classes",
        ),
        (["--way", "2", "--query", "9"], "--shot 1 and --query 9 need 10 pictures of every class, and class"),
        (["--way", "2", "--query", "9"], "of mine/test has 6: give --query 5, or add pictures"),
        (["--way", "2", "--shot", "6"], "--shot 6 and --query 1 need 7 pictures of every class"),
        (["--way", "2", "--shot", "6"], "give a --shot below 6, or add pictures"),
        (["--way", "2", "--protocol", "random"], "--protocol goes with --data omniglot; --data "),
        (["--trained-on", "glyphs"], "--trained-on and --variant name shipped weights, not those of a run"),
        (["--variant", "full_context"], "--trained-on and --variant name shipped weights, not those of a run"),
    ],
)
def test_messages_speak_of_options_and_not_of_python(tmp_path, capsys, words, message):
    run, _ = trained(tmp_path)
    capsys.readouterr()
    assert main(["evaluate", str(run), "--data", str(tmp_path / "mine"), *words]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert "n_way" not in error
    assert "(" not in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("method", "more"),
    [
        ("maml", ["--set", "inner_steps=1"]),
        ("siamese", []),
        ("simple_shot", []),
        ("relation", []),
        ("prototypical", []),
    ],
)
def test_sizes_that_do_not_fit_are_one_line_and_never_a_traceback(tmp_path, capsys, method, more):
    """MAML trained at 32 pixels and tested at 84 in colour ended in sixty lines about mat1 and mat2."""
    run, _ = trained(tmp_path, "--size", "32", *more, method=method)
    capsys.readouterr()
    words = ["evaluate", str(run), "--data", str(tmp_path / "mine"), "--way", "2", "--episodes", "2"]
    assert main(words) == 0
    capsys.readouterr()
    assert main([*words, "--size", "84", "--channels", "3"]) == 1
    error = capsys.readouterr().err
    assert (
        "these weights take pictures of 32 x 32 pixels and 1 channel(s); those of mine/test have 84 x 84 and 3" in error
    )
    assert "leave --size and --channels out" in error
    assert error.count("\n") == 1
    assert main([*words, "--size", "84"]) == (0 if method == "prototypical" else 1)  # class means of any embedding
    assert main(["evaluate", str(run), "--data", "glyphs", "--way", "2"]) == (0 if method == "prototypical" else 1)
    capsys.readouterr()


def test_a_file_left_out_is_a_note_of_one_line(tmp_path):
    data = drawings(tmp_path / "mine")
    (data / "class0" / "more.gif").write_bytes(b"GIF")
    words = ["evaluate", "baselines", "--data", str(data), "--way", "2", "--episodes", "2"]
    done = subprocess.run([sys.executable, "-m", "fsl_course", *words], capture_output=True, text=True, check=True)
    assert done.stderr.startswith("note: 1 file of mine left out (class0/more.gif): only regular files that end in")
    assert done.stderr.count("\n") == 1
