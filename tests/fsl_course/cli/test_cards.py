import json
import shlex
from dataclasses import replace

import pytest
import torch

import fsl_course
from fsl_course.__main__ import _parser
from fsl_course.cli import cards
from fsl_course.cli.data import data_name
from fsl_course.cli.options import read
from tests.conftest import toy_images


def given(*words: str):
    return read(*_parser(), ["train", *words, "--out", "somewhere", "--root", "elsewhere", "--quiet"])


@pytest.mark.parametrize(
    "words",
    [
        ["maml", "--set", "inner_lr=0.4", "--set", 'net="conv4"', "--clip", "1.5", "--tasks", "2", "--cosine"],
        [
            "prototypical",
            *["--data", "omniglot", "--protocol", "random", "--rotations", "--halve-every", "7", "--bfloat16"],
        ],
        [
            "siamese",
            "--data",
            "my pictures",
            "--size",
            "32",
            "--channels",
            "3",
            "--invert",
            "no",
            "--within-group",
            "--device",
            "cpu",
        ],
        ["transfer", "--join-validation", "--norm", "group", "--halving", "stride", "--seed", "5", "--shot", "3"],
    ],
)
def test_the_command_repeats_every_setting_and_names_no_place(words):
    options = given(*words)
    again = shlex.split(cards.command(options))
    assert again[:4] == ["python", "-m", "fsl_course", "train"]
    assert again[-2:] == ["--out", "DIR"]
    assert not {"elsewhere", "somewhere", "--quiet", "--root"} & set(again)
    found = read(*_parser(), again[3:])
    assert vars(found) | {"out": "somewhere", "root": "elsewhere", "quiet": True} == vars(options)


def test_the_card_holds_what_a_run_depends_on_and_can_be_written():
    options = given("--preset", "snell-omniglot", "--way", "20", "--seed", "3")
    card = json.loads(json.dumps(cards.settings_card(options, {"width": 64}, torch.device("cpu"), toy_images())))
    assert (card["preset"], card["preset_changed"]) == ("snell-omniglot", {"way": 20, "seed": 3})
    assert (card["method"], card["settings"], card["data"]) == ("prototypical", {"width": 64}, "omniglot")
    assert (card["seed"], card["device"], card["omniglot_protocol"]) == (3, "cpu", "random")
    assert (card["torch"], card["fsl_course"]) == (torch.__version__, fsl_course.__version__)
    assert card["threads"] == torch.get_num_threads()
    assert "--preset" not in card["command"]
    assert "somewhere" not in json.dumps(card)


def test_a_folder_is_called_by_its_last_name_and_has_no_omniglot_protocol(tmp_path):
    options = given("prototypical", "--data", str(tmp_path / "birds"))
    assert data_name(options) == "birds"
    about = cards.about(options, {}, toy_images())
    assert (about["method"], about["settings"], about["data"]) == ("prototypical", {}, "birds")
    assert "omniglot_protocol" not in about


@pytest.mark.parametrize("encoder", ["conv4", "resnet18"])
def test_the_weights_of_a_folder_say_how_its_pictures_were_prepared_and_what_its_classes_are_called(encoder):
    options = given("prototypical", "--data", "birds", "--size", "32", "--channels", "3", "--encoder", encoder)
    source = replace(toy_images(4), inverted=False)
    about = json.loads(json.dumps(cards.about(options, {}, source)))
    found = {key: about["pictures"][key] for key in ("size", "channels", "inverted")}
    assert found == {"size": 32, "channels": 3, "inverted": False}
    assert about["pictures"]["range"].endswith("ImageNet's mean and deviation") == (encoder == "resnet18")
    assert about["class_names"] == {"train": ["class 0", "class 1"], "val": ["class 2"], "test": ["class 3"]}
    assert "class_names" not in cards.about(given("prototypical", "--data", "icons"), {}, source)
