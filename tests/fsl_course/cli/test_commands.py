import json
import os
import shlex
import signal
from pathlib import Path

import pytest
import torch
from PIL import Image

from fsl_course.__main__ import main
from fsl_course.data import load_glyphs
from fsl_course.methods.prototypical import PrototypicalNetwork
from fsl_course.nets import conv4
from fsl_course.weights.checkpoints import load_file, load_learner, save_learner
from fsl_course.weights.learners import SETTINGS, settings_of
from tests.conftest import toy_images

QUICK = ["--way", "5", "--query", "3", "--width", "8", "--validate-every", "4", "--quiet"]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "prototypical-glyphs.safetensors")[0]


def test_train_then_evaluate(tmp_path, capsys, few_episodes):
    assert main(["train", "prototypical", "--steps", "8", "--out", str(tmp_path), *QUICK]) == 0
    out = capsys.readouterr().out
    assert "5-way 1-shot" in out
    assert "20-way 5-shot" in out
    card = json.loads((tmp_path / "prototypical-glyphs.json").read_text())
    assert card["settings"] == {"width": 8, "norm": "batch", "halving": "pool", "in_channels": 1}
    assert [(r["way"], r["shot"]) for r in card["test"]] == [(5, 1), (5, 5), (20, 1), (20, 5)]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["prototypical-glyphs.json", "prototypical-glyphs.safetensors"]

    file = str(tmp_path / "prototypical-glyphs.safetensors")
    assert main(["evaluate", file, "--episodes", "4", "--json"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert row["mean"] == pytest.approx(card["test"][0]["mean"])  # the same episodes
    assert row["inductive"] is True
    assert (row["way"], row["shot"], row["episodes"], row["data"]) == (5, 1, 4, "glyphs/test")
    assert main(["evaluate", str(tmp_path), "--episodes", "4", "--json"]) == 0  # the folder stands for its weights
    assert json.loads(capsys.readouterr().out) == row
    (tmp_path / "other.safetensors").write_bytes(b"")
    assert main(["evaluate", str(tmp_path)]) == 1
    assert "it holds other.safetensors, prototypical-glyphs.safetensors. Name the file." in capsys.readouterr().err


def test_the_command_in_the_card_makes_the_same_weights(tmp_path, few_episodes):
    first, second = tmp_path / "a", tmp_path / "b"
    assert (
        main(
            ["train", "prototypical", "--steps", "5", "--seed", "3", "--halve-every", "2", "--out", str(first), *QUICK]
        )
        == 0
    )
    words = json.loads((first / "prototypical-glyphs.json").read_text())["command"].split()
    assert words[:3] == ["python", "-m", "fsl_course"]
    assert main([*words[3:-1], str(second), "--quiet"]) == 0
    assert all(torch.equal(t, weights(second)[k]) for k, t in weights(first).items())


def test_a_run_stopped_by_ctrl_c_goes_on_with_the_same_command(tmp_path, capsys, monkeypatch, few_episodes):
    def run(folder: Path) -> int:
        return main(["train", "prototypical", "--steps", "8", "--out", str(folder), *QUICK])

    step = PrototypicalNetwork.training_step
    calls = []

    def pressed_at_step_3(self, episodes):
        calls.append(1)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return step(self, episodes)

    with monkeypatch.context() as patch:
        patch.setattr(PrototypicalNetwork, "training_step", pressed_at_step_3)
        assert run(tmp_path / "a") == 130
    assert "Stopped after step 3 of 8" in capsys.readouterr().out
    kept = ["prototypical-glyphs.settings.json", "prototypical-glyphs.state.safetensors"]
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == kept
    assert run(tmp_path / "a") == 0
    assert run(tmp_path / "b") == 0
    one, other = weights(tmp_path / "a"), weights(tmp_path / "b")
    assert all(torch.equal(t, other[k]) for k, t in one.items())


def test_baselines_are_rows(capsys):
    assert main(["evaluate", "baselines", "--episodes", "20", "--query", "3", "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [r["method"] for r in rows] == ["chance", "pixels, Euclidean", "pixels, cosine", "random Conv4"]
    assert all(0 < r["ci95"] < r["mean"] < 1 for r in rows)


def test_text_output_names_episodes_interval_and_protocol(capsys):
    assert main(["evaluate", "baselines", "--data", "icons", "--within-group", "--way", "2", "--query", "2",
                 "--split", "all", "--episodes", "5", "--transductive"]) == 0  # fmt: skip
    out = capsys.readouterr().out
    assert "icons: 2-way 1-shot, 2 queries per class, seed 0, within groups" in out
    assert out.count("95 % interval, transductive") == 4


def train_tiny(method: str, out: Path, *words: str) -> dict:
    """Two steps of a tiny network on glyphs -> the card."""
    assert main(["train", method, "--way", "5", "--query", "2", "--width", "4", "--steps", "2", "--validate-every", "2",
                 "--quiet", "--out", str(out), *words]) == 0  # fmt: skip
    return json.loads((out / f"{method}-glyphs.json").read_text())


def test_set_reads_json_and_words_and_the_card_repeats_the_run(tmp_path, few_episodes):
    words = ["--set", "full_context=true", "--set", "scale=2.5", "--set", "similarity=euclidean"]
    card = train_tiny("matching", tmp_path / "a", *words)
    assert card["settings"] == {
        "width": 4, "norm": "batch", "halving": "pool", "in_channels": 1,
        "full_context": True, "scale": 2.5, "similarity": "euclidean",
    }  # fmt: skip
    assert " ".join(words) in card["command"]
    learner, _ = load_learner(tmp_path / "a" / "matching-glyphs.safetensors")
    assert (learner.full_context, learner.scale, learner.similarity) == (True, 2.5, "euclidean")
    again = shlex.split(card["command"])
    assert main([*again[3:-1], str(tmp_path / "b"), "--quiet"]) == 0
    one, other = (load_file(tmp_path / folder / "matching-glyphs.safetensors")[0] for folder in "ab")
    assert set(one) == set(other)
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_set_takes_null_and_words_in_quotes(tmp_path, few_episodes):
    card = train_tiny("matching", tmp_path, "--set", "scale=null", "--set", 'similarity="cosine"')
    assert card["settings"]["scale"] is None
    assert card["settings"]["similarity"] == "cosine"
    assert load_learner(tmp_path / "matching-glyphs.safetensors")[0].scale == 10.0
    words = shlex.split(card["command"])
    assert words[words.index("scale=null") + 2] == 'similarity="cosine"'  # quotes survive the shell


@pytest.mark.parametrize(
    ("method", "setting", "attribute"),
    [("siamese", "objective=contrastive", "contrastive"), ("relation", "objective=cross_entropy", "cross_entropy")],
)
def test_set_chooses_the_objective(tmp_path, few_episodes, method, setting, attribute):
    card = train_tiny(method, tmp_path, "--set", setting)
    assert card["settings"]["objective"] == attribute
    assert load_learner(tmp_path / f"{method}-glyphs.safetensors")[0].objective == attribute


def test_transfer_gets_as_many_base_classes_as_it_trains_on(tmp_path, few_episodes):
    card = train_tiny("transfer", tmp_path, "--set", "head=cosine")
    n_base = len(load_glyphs().split("train"))
    assert card["settings"]["n_base"] == n_base
    assert card["settings"]["head"] == "cosine"
    assert "n_base" not in card["command"]
    learner, _ = load_learner(tmp_path / "transfer-glyphs.safetensors")
    assert learner.head.weight.shape == (n_base, 4)
    assert [(r["way"], r["shot"]) for r in card["test"]] == [(5, 1), (5, 5), (20, 1), (20, 5)]


HEADED = ["maml", "anil", "meta_sgd", "reptile", "meta_lstm"]


def train_head(method: str, out: Path, *words: str) -> dict:
    """One 3-way 1-shot step -> the card."""
    assert main(["train", method, "--way", "3", "--shot", "1", "--query", "2", "--width", "4", "--steps", "1", "--quiet",
                 "--set", "inner_steps=1", "--out", str(out), *words]) == 0  # fmt: skip
    return json.loads((out / f"{method}-glyphs-3w1s.json").read_text())


@pytest.mark.parametrize("method", HEADED)
def test_a_method_with_a_head_names_its_way_and_shot(tmp_path, few_episodes, method):
    card = train_head(method, tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"{method}-glyphs-3w1s.{s}" for s in ("json", "safetensors")]
    assert [(row["way"], row["shot"], row["query"]) for row in card["test"]] == [(3, 1, 15)]
    assert (card["settings"]["n_way"], card["settings"]["inner_steps"]) == (3, 1)
    assert "--way 3 --shot 1" in card["command"]
    learner, about = load_learner(tmp_path / f"{method}-glyphs-3w1s.safetensors")
    assert learner.model.head.weight.shape[0] == 3
    assert about["settings"] == card["settings"]


def test_the_norm_is_the_one_asked_for_or_the_usual_one(tmp_path, few_episodes):
    usual = settings_of("maml", load_glyphs(), 3).get("norm", SETTINGS["norm"])
    for words, norm in (((), usual), (("--norm", "group"), "group"), (("--norm", "batch"), "batch")):
        out = tmp_path / "-".join(("run", *words))
        card = train_head("maml", out, *words)
        learner, _ = load_learner(out / "maml-glyphs-3w1s.safetensors")
        kinds = {"group": torch.nn.GroupNorm, "batch": torch.nn.BatchNorm2d}
        for name, kind in kinds.items():
            assert any(isinstance(m, kind) for m in learner.modules()) == (name == norm), (words, name)
        assert f"--norm {norm}" in card["command"] or not words
        assert card["settings"]["norm"] == norm


def test_the_weights_of_a_head_are_evaluated_with_its_ways_and_refuse_others(tmp_path, few_episodes, capsys):
    card = train_head("maml", tmp_path)
    capsys.readouterr()
    words = ["--query", "15", "--episodes", "4", "--json"]
    assert main(["evaluate", str(tmp_path), "--way", "3", *words]) == 0
    row = json.loads(capsys.readouterr().out)
    assert row["mean"] == pytest.approx(card["test"][0]["mean"])
    assert (row["method"], row["way"], row["inductive"]) == ("maml-glyphs-3w1s", 3, True)
    for way in (2, 5):
        assert main(["evaluate", str(tmp_path), "--way", str(way), *words]) == 1
        error = capsys.readouterr().err
        assert error.startswith(f"error: the model has 3 outputs and the episode {way} classes")
        assert "Traceback" not in error


def test_the_command_in_the_card_of_a_head_makes_the_same_weights(tmp_path, few_episodes):
    card = train_head("meta_sgd", tmp_path / "a", "--set", "inner_lr=0.2", "--tasks", "2")
    assert main([*shlex.split(card["command"])[3:-1], str(tmp_path / "b"), "--quiet"]) == 0
    one, other = (load_file(tmp_path / folder / "meta_sgd-glyphs-3w1s.safetensors")[0] for folder in "ab")
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


@pytest.fixture
def few_episodes(monkeypatch):
    """The card's 600 test episodes are not what these tests are about."""
    monkeypatch.setattr("fsl_course.cli.commands.CARD_EPISODES", 4)


def own_pictures(folder: Path, classes: int = 10) -> Path:
    generator = torch.Generator().manual_seed(0)
    for c in range(classes):
        (folder / f"class{c}").mkdir(parents=True)
        for n in range(6):
            picture = Image.fromarray(
                torch.randint(0, 255, (20, 30, 3), dtype=torch.uint8, generator=generator).numpy()
            )
            picture.save(folder / f"class{c}" / f"{n}.png")
    return folder


def test_own_pictures_in_colour(tmp_path, few_episodes):
    folder = own_pictures(tmp_path / "mine")
    out = tmp_path / "out"
    assert main(["train", "prototypical", "--data", str(folder), "--channels", "3", "--size", "32", "--way", "3",
                 "--query", "2", "--steps", "2", "--width", "4", "--quiet", "--out", str(out)]) == 0  # fmt: skip
    learner, about = load_learner(out / "prototypical-mine.safetensors")
    assert about["settings"]["in_channels"] == 3
    assert learner.encoder.in_channels == 3


@pytest.mark.parametrize("words", [["siamese"], ["transfer"], ["relation"], ["matching", "--set", "full_context=True"]])
def test_every_method_takes_other_sizes(tmp_path, few_episodes, words):
    folder, out = own_pictures(tmp_path / "mine"), tmp_path / "run"
    method, *own = words
    assert main(["train", method, *own, "--data", str(folder), "--size", "32", "--way", "3", "--query", "2", "--steps", "1",
                 "--width", "4", "--quiet", "--out", str(out)]) == 0  # fmt: skip
    learner, about = load_learner(out / f"{method}-mine.safetensors")
    assert about["settings"]["size"] == 32
    assert learner.embed(torch.zeros(1, 1, 32, 32)).shape == (1, 4 * (64 if method == "relation" else 4))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "baselines", "--out", "x"], "nothing to train"),
        (["train", "protonet", "--out", "x"], "no trainable method 'protonet': choose one of"),
        (["train", "protonet", "--out", "x"], 'transfer. Did you mean "prototypical"?'),
        (["train", "prototypical", "--data", "glyps", "--out", "x"], 'is no folder. Did you mean "glyphs"?'),
        (["train", "matching", "--set", "full_contxt=1", "--out", "x"], 'Did you mean "full_context"?'),
        (["train", "matching", "--set", "width=100000000", "--out", "x"], "from 1 to 1024; got 100000000"),
        (["train", "maml", "--set", "inner_lr=NaN", "--out", "x"], "inner_lr must be a number from 0 to 1e30; got nan"),
        (["train", "maml", "--set", "inner_lr=1e300", "--out", "x"], "inner_lr must be a number from 0 to 1e30"),
        (["train", "maml", "--set", "net=mlp", "--out", "x"], "net=mlp does not go with these episodes"),
        (["train", "transfer", "--set", "size=84", "--out", "x"], "of pictures of 28 x 28 pixels and 1 channel"),
        (
            ["train", "maml", "--set", "n_way=3", "--out", "x"],
            "n_way=3 does not go with these episodes, which are 20-way",
        ),
        (["train", "maml", "--bfloat16", "--out", "x"], "maml adapts its weights"),
        (["train", "prototypical", "--query", "500", "--out", "x"], "at most n_query=19 fits"),
        (["train", "prototypical", "--device", "cuda:77", "--out", "x"], "there is no device 'cuda:77' here"),
        (["train", "prototypical", "--data", "omniglot", "--out", "x"], "where is Omniglot? Give --root DIR"),
        (["train", "prototypical", "--data", ".", "--out", "x"], "holds no class folders"),
        (["evaluate", "protonet"], 'Did you mean "prototypical-glyphs"?'),
        (["evaluate", "prototypical", "--trained-on", "glyps"], 'Did you mean "prototypical-glyphs"?'),
        (["evaluate", "prototypical", "--device", "tpu"], "there is no device 'tpu' here"),
        (
            ["train", "prototypical", "--data", "nowhere", "--out", "x"],
            "takes glyphs, icons, omniglot or a folder; 'nowhere'",
        ),
        (["train", "prototypical", "--way", "5000", "--out", "x"], "5000-way episode needs 5000 classes"),
        (
            ["train", "matching", "--set", "full_context", "--out", "x"],
            "--set takes KEY=VALUE, e.g. --set full_context=true",
        ),
        (
            ["train", "matching", "--set", "=true", "--out", "x"],
            "--set takes KEY=VALUE, e.g. --set full_context=true; got '",
        ),
        (["train", "matching", "--set", "shots=sum", "--out", "x"], "matching has no setting shots: choose from width"),
        (["train", "prototypical", "--set", "objective=mse", "--out", "x"], "prototypical has no setting objective"),
        (["train", "siamese", "--set", "objective=hinge", "--out", "x"], "objective must be one of bce, contrastive"),
        (["train", "transfer", "--set", "n_base=abc", "--out", "x"], "n_base must be a whole number from 0"),
        (["train", "transfer", "--set", "n_base=-1", "--out", "x"], "n_base must be a whole number from 0"),
        (["train", "siamese", "--set", "width=abc", "--out", "x"], "width must be a whole number from 1 to 1024"),
        (
            ["train", "matching", "--set", "scale=abc", "--out", "x"],
            "scale must be a number above 0, or None; got 'abc'",
        ),
        (["train", "matching", "--set", "full_context=yes", "--out", "x"], "full_context must be True or False"),
        (["train", "relation", "--set", "shots=", "--out", "x"], 'shots must be "mean" or "sum"; got \'\''),
        (["evaluate", "maml", "--way", "7"], "no weights are shipped as 'maml-glyphs-7w1s'"),
        (["evaluate", "gone.safetensors"], "no checkpoint at gone.safetensors"),
        (["evaluate", "prototypical", "--shot", "30"], "need 45 drawings"),
        (["evaluate", "prototypical", "--data", "omniglot", "--root", "nowhere"], "nowhere"),
    ],
)
def test_errors_are_one_sentence_and_status_1(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FSL_DATA", raising=False)
    assert main(words) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_finished_run_leaves_one_json_with_every_setting(tmp_path, few_episodes):
    card = train_tiny("prototypical", tmp_path, "--seed", "7", "--lr", "0.002")
    assert sorted(p.suffixes for p in tmp_path.iterdir()) == [[".json"], [".safetensors"]]
    assert (card["seed"], card["device"], card["preset"], card["torch"]) == (7, "cpu", None, torch.__version__)
    assert (card["options"]["lr"], card["options"]["way"], card["options"]["rotations"]) == (0.002, 5, False)
    assert not {"out", "root", "quiet"} & set(card["options"])  # places and views, which change no weight
    for option in (
        "protocol",
        "halve_every",
        "clip",
        "width",
        "norm",
        "halving",
        "bfloat16",
        "join_validation",
        "size",
    ):
        assert option in card["options"]


def test_the_settings_lie_beside_the_state_from_the_start(tmp_path, monkeypatch, few_episodes):
    seen = {}

    def look(*args, **kwargs):
        seen.update(json.loads((tmp_path / "prototypical-glyphs.settings.json").read_text()))
        raise KeyboardInterrupt

    monkeypatch.setattr("fsl_course.cli.commands.fit", look)
    assert main(["train", "prototypical", "--out", str(tmp_path), *QUICK]) == 130
    assert seen["options"]["query"] == 3
    assert seen["command"].startswith("python -m fsl_course train prototypical")


def test_settings_of_a_refused_run_do_not_replace_those_of_the_state(tmp_path, monkeypatch, capsys, few_episodes):
    words = ["train", "prototypical", "--steps", "2", "--out", str(tmp_path), *QUICK]
    with monkeypatch.context() as patch:
        patch.setattr("fsl_course.cli.commands.checkpoints.save_learner", _pressed)
        assert main(words) == 130
    settings = tmp_path / "prototypical-glyphs.settings.json"
    before = settings.read_bytes()
    assert main([*words, "--lr", "0.5"]) == 1
    assert "belongs to a run with other settings (lr: 0.001 there, 0.5 now)" in capsys.readouterr().err
    assert settings.read_bytes() == before


def _pressed(*args, **kwargs):
    raise KeyboardInterrupt


def test_joined_validation_trains_on_more_classes_and_needs_some(tmp_path, few_episodes, monkeypatch, capsys):
    card = train_tiny("transfer", tmp_path / "a", "--join-validation")
    glyphs = load_glyphs()
    assert card["settings"]["n_base"] == len(glyphs.split("train")) + len(glyphs.split("val"))
    assert card["validation"] == []
    folder = own_pictures(tmp_path / "mine" / "train", 4)
    own_pictures(tmp_path / "mine" / "test", 2)
    for number, place in enumerate(sorted((tmp_path / "mine" / "test").iterdir())):
        place.rename(place.with_name(f"other{number}"))
    words = ["--data", str(folder.parent), "--way", "2", "--query", "2", "--out", str(tmp_path / "b")]
    assert main(["train", "prototypical", "--join-validation", *words]) == 1
    assert "--join-validation needs validation classes, and mine has none" in capsys.readouterr().err
    assert not (tmp_path / "b").exists()


def test_weights_are_tested_under_the_protocol_they_were_trained_under(tmp_path, few_episodes, monkeypatch, capsys):
    seen = []

    def load(root, *, protocol, rotations):
        seen.append(protocol)
        return toy_images(classes=40, drawings=20)

    monkeypatch.setattr("fsl_course.cli.commands.load_omniglot", load)
    words = ["--data", "omniglot", "--root", "anywhere"]
    assert main(["train", "prototypical", *words, "--protocol", "random", "--steps", "1", "--width", "4", "--way", "2",
                 "--query", "2", "--quiet", "--out", str(tmp_path)]) == 0  # fmt: skip
    test = ["evaluate", str(tmp_path), *words, "--episodes", "4", "--json"]
    capsys.readouterr()
    assert main(test) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["protocol"] == "random"
    assert err == ""
    assert main([*test, "--protocol", "alphabets"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["protocol"] == "alphabets"
    assert "were trained on classes of the other protocol, --protocol random" in err
    assert seen == ["random", "random", "alphabets"]


@pytest.mark.omniglot
def test_omniglot_on_the_command_line(capsys):
    if not os.environ.get("FSL_DATA"):
        pytest.skip("the real Omniglot is not here: set FSL_DATA to the folder that holds omniglot-py")
    assert main(["evaluate", "baselines", "--data", "omniglot", "--episodes", "20", "--json"]) == 0
    rows = {r["method"]: r for r in map(json.loads, capsys.readouterr().out.splitlines())}
    assert rows["pixels, cosine"]["mean"] > rows["chance"]["mean"] + 0.1


@pytest.mark.parametrize("protocol", [["random"], 3, "foo", {"random": 1}])
def test_a_foreign_file_with_an_odd_protocol_is_as_one_with_none(protocol, tmp_path, capsys):
    learner, settings = PrototypicalNetwork(conv4(2)), {"width": 2}
    about = {"method": "prototypical", "settings": settings, "omniglot_protocol": protocol}
    save_learner(tmp_path / "w.safetensors", learner, about)
    assert main(["evaluate", str(tmp_path), "--episodes", "2", "--query", "1"]) == 0
    assert capsys.readouterr().err == ""
