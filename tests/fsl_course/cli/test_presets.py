import json
import shlex

import pytest

from fsl_course.__main__ import _parser, main
from fsl_course.cli.options import presets_text, read
from fsl_course.cli.presets import PRESETS
from fsl_course.cli.train import own_settings
from fsl_course.methods.maml import MAML
from fsl_course.weights import checkpoints, learners
from tests.conftest import toy_images


def options_of(name: str, *words: str):
    data = ["--data", "glyphs"] if PRESETS[name].options.get("data", "") is None else []
    return read(*_parser(), ["train", "--preset", name, *data, "--out", "x", *words])


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_says_what_the_command_line_and_the_method_understand(name):
    preset = PRESETS[name]
    known = vars(read(*_parser(), ["train", preset.method, "--out", "x"]))
    assert set(preset.options) <= set(known)
    # each value must be one that could have been typed: as words the command line gives the same
    words = [w for key in preset.options.get("set", ()) for w in ("--set", key)]
    for key, value in preset.options.items():
        option = f"--{key.replace('_', '-')}"
        if isinstance(value, bool):
            words += [option] * value
        elif value is not None and key != "set":
            words += [option, str(value)]
    data = ["--data", "glyphs"] if "data" in preset.options and preset.options["data"] is None else []
    typed = vars(read(*_parser(), ["train", preset.method, *words, *data, "--out", "x"]))
    found = vars(options_of(name))
    assert found | {"preset": None, "preset_changed": {}} == typed
    learners.make(preset.method, width=4, **own_settings(preset.options.get("set", ())))
    assert preset.source


def test_the_numbers_of_some_papers():
    snell = options_of("snell-omniglot")
    assert (snell.way, snell.shot, snell.query, snell.lr, snell.halve_every) == (60, 1, 5, 1e-3, 2000)
    assert (snell.protocol, snell.rotations, snell.join_validation) == ("random", True, True)
    sung = options_of("sung-omniglot")
    assert (sung.way, sung.query, sung.steps, sung.halve_every, sung.clip) == (5, 19, 1_000_000, 100_000, 0.5)
    assert own_settings(sung.set) == {"objective": "mse", "shots": "sum"}
    for name, way, tasks, rate, steps in (
        ("finn-omniglot-5way", 5, 32, 0.4, 1),
        ("finn-omniglot-20way", 20, 16, 0.1, 5),
    ):
        finn, own = options_of(name), own_settings(options_of(name).set)
        assert (finn.way, finn.tasks, finn.query, finn.steps, finn.halving) == (way, tasks, 1, 60_000, "stride")
        assert own["inner_lr"] == pytest.approx(way * rate)  # the code sums the loss over classes, ours is a mean
        assert own["inner_steps"] == steps
        assert f"inner_lr={rate} takes the paper's number" in PRESETS[name].note
    nichol = options_of("nichol-omniglot-20way")
    assert (nichol.tasks, nichol.shot, nichol.steps) == (5, 10, 200_000)
    assert own_settings(nichol.set)["batch"] == 20


@pytest.mark.parametrize(
    ("name", "numbers", "own"),
    [
        ("snell-miniimagenet", {"way": 30, "shot": 1, "query": 15, "halve_every": 2000, "size": 84, "lr": 1e-3}, {}),
        ("finn-miniimagenet", {"way": 5, "query": 15, "tasks": 4, "width": 32, "clip": 10.0, "steps": 60_000, "halving": "pool"},
         {"inner_lr": 0.05, "inner_steps": 5, "test_steps": 10}),
        ("finn-omniglot-5way", {"lr": 1e-3}, {"test_steps": 3}),
        ("finn-omniglot-20way", {"lr": 1e-3}, {"test_steps": 5}),
        ("nichol-omniglot-5way", {"tasks": 5, "shot": 10, "steps": 100_000, "halving": "stride"},
         {"batch": 10, "inner_steps": 5, "test_steps": 50}),
        ("nichol-omniglot-20way", {"halving": "stride"}, {"inner_steps": 10, "test_steps": 50}),
        ("sung-omniglot", {"lr": 1e-3, "rotations": False, "turn_tasks": True}, {}),
        ("wang-miniimagenet", {"way": 64, "shot": 1, "query": 3, "steps": 90 * 64 * 600 // 256, "size": 84}, {}),
    ],
)  # fmt: skip
def test_the_other_numbers_of_the_papers(name, numbers, own):
    found = options_of(name)
    assert {key: getattr(found, key) for key in numbers} == numbers
    assert own.items() <= own_settings(found.set).items()


@pytest.mark.parametrize(
    ("name", "turns", "query", "transductive"),
    [
        ("sung-omniglot", (False, True), 1, True),
        ("finn-omniglot-20way", (True, False), 1, True),
        ("nichol-omniglot-5way", (False, False), 1, False),
        ("li-omniglot", (True, False), 15, True),
    ],
)
def test_a_preset_carries_the_test_of_its_paper(name, turns, query, transductive):
    test = read(*_parser(), ["evaluate", "DIR", *PRESETS[name].test.split()])
    assert (test.rotations, test.turn_tasks) == turns
    assert (test.query, test.transductive, test.protocol) == (query, transductive, "random")
    assert (test.way or 5) == PRESETS[name].options["way"]  # weights with a head bring their ways


def test_the_list_names_every_preset_with_source_and_note():
    text = " ".join(presets_text().split())
    assert "The paper's test: evaluate DIR --data omniglot --protocol random --turn-tasks" in text
    for name, preset in PRESETS.items():
        assert f"{name}: {preset.method}." in text
        assert preset.source[1:] in text
        assert " ".join(preset.note.split()) in text


@pytest.fixture(scope="module")
def characters():
    return toy_images(classes=160, drawings=20, groups=4, size=28)


@pytest.mark.parametrize("name", [name for name, preset in PRESETS.items() if preset.options.get("data") == "omniglot"])
def test_every_recipe_for_omniglot_trains(name, tmp_path, monkeypatch, characters):
    """One step with a narrow net; its own ways, shots and queries wherever they cost little."""
    monkeypatch.setattr("fsl_course.data.load_omniglot", lambda *args, **kwargs: characters)
    monkeypatch.setattr("fsl_course.cli.train.CARD_EPISODES", 2)
    words = ["--steps", "1", "--width", "2", "--tasks", "1", "--root", "anywhere", "--quiet", "--out", str(tmp_path)]
    changed = {"steps": 1, "width": 2} | ({"tasks": 1} if "tasks" in PRESETS[name].options else {})
    if PRESETS[name].method == "reptile":  # 50 steps on each validation episode would take a minute
        words, changed = [*words, "--join-validation"], changed | {"join_validation": True}
    assert main(["train", "--preset", name, *words]) == 0
    (file,) = tmp_path.glob("*.json")
    card = json.loads(file.read_text())
    assert card["preset"] == name
    assert card["preset_changed"] == changed
    assert card["options"]["way"] == PRESETS[name].options["way"]
    assert "--preset" not in card["command"]
    again = shlex.split(card["command"])
    settings = vars(read(*_parser(), again[3:]))
    assert {option: settings[option] for option in card["options"]} == card["options"]


def test_a_preset_and_its_written_out_command_make_the_same_learner(tmp_path, monkeypatch, characters):
    monkeypatch.setattr("fsl_course.data.load_omniglot", lambda *args, **kwargs: characters)
    monkeypatch.setattr("fsl_course.cli.train.CARD_EPISODES", 2)
    quick = ["--root", "anywhere", "--quiet"]
    words = [
        "--steps",
        "2",
        "--width",
        "2",
        "--tasks",
        "1",
        "--set",
        "inner_lr=0.4",
        *quick,
        "--out",
        str(tmp_path / "a"),
    ]
    assert main(["train", "--preset", "finn-omniglot-5way-first-order", *words]) == 0
    card = json.loads((tmp_path / "a" / "maml-omniglot-5w1s.json").read_text())
    assert main([*shlex.split(card["command"])[3:-1], str(tmp_path / "b"), *quick]) == 0
    made = [checkpoints.load_learner(tmp_path / f / "maml-omniglot-5w1s.safetensors")[0] for f in "ab"]
    assert all(isinstance(learner, MAML) and learner.first_order and learner.lr == 0.4 for learner in made)
    one, other = (learner.state_dict() for learner in made)
    assert all(tensor.equal(other[key]) for key, tensor in one.items())
