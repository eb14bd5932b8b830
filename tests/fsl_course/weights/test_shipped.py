"""The weights that ship with the course: how they are found, and what they promise."""

import json
import re

import pytest

from fsl_course.__main__ import main
from fsl_course.data import assets, load_glyphs
from fsl_course.data.assets import asset
from fsl_course.episodes import EpisodeSampler, SinusoidSampler
from fsl_course.evaluation import evaluate
from fsl_course.weights.checkpoints import (
    card,
    pretrained,
    save_learner,
    shipped,
    shipped_name,
)
from fsl_course.weights.learners import make


def test_unknown_weights_name_what_is_shipped():
    with pytest.raises(
        ValueError, match="no weights are shipped as 'prototypical-photos'; shipped are: .*prototypical-glyphs"
    ):
        pretrained("prototypical", "photos")


@pytest.mark.parametrize("name", ["maml_rl", "recurrent_rl"])
def test_what_acts_in_worlds_is_no_learner_of_pictures(name, tmp_path, capsys):
    for words in (["train", name, "--steps", "1", "--out", str(tmp_path)], ["evaluate", name]):
        assert main(words) != 0
        assert f"{name} acts in worlds and judges no pictures" in capsys.readouterr().err


@pytest.mark.parametrize("which", [(None, "glyphs"), ("prototypical", None), (3, ["glyphs"])])
def test_what_is_no_name_is_explained(which):
    for call in (pretrained, card, shipped_name):
        with pytest.raises(TypeError, match="method and data are names, such as prototypical and glyphs; got"):
            call(*which)


NAMES = (
    "prototypical-omniglot", "prototypical-omniglot-5s", "prototypical-omniglot-alphabets", "matching-omniglot",
    "matching-omniglot-full_context", "matching-omniglot-full_context-5s", "maml-omniglot-5w1s", "maml-omniglot-5w5s",
    "maml-omniglot-first_order-5w1s", "maml-sinusoids", "reptile-omniglot-5w",
)  # fmt: skip


@pytest.fixture
def on_offer(tmp_path, monkeypatch):
    """A folder of shipped weights: each a tiny learner whose card is its name."""
    folder = tmp_path / "checkpoints"
    for name in NAMES:
        method, own = name.split("-")[0], {"full_context": True} if "full_context" in name else {}
        save_learner(
            folder / f"{name}.safetensors",
            make(method, width=2, **own),
            {"method": method, "settings": own | {"width": 2}},
        )
        (folder / f"{name}.json").write_text(json.dumps({"name": name}))
    sums = json.loads(asset("checksums.json").read_text(encoding="utf-8"))
    sums |= {f"checkpoints/{name}.safetensors": assets.sha256(folder / f"{name}.safetensors") for name in NAMES}
    (tmp_path / "checksums.json").write_text(json.dumps(sums))
    monkeypatch.setattr(assets, "_IN_WHEEL", tmp_path)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (("prototypical", "omniglot"), "prototypical-omniglot"),
        (("prototypical", "omniglot", 5, 1), "prototypical-omniglot"),  # way and shot are no error without a head
        (("prototypical", "omniglot", 20, 5), "prototypical-omniglot-5s"),
        (("prototypical", "omniglot", None, 5), "prototypical-omniglot-5s"),
        (("prototypical", "omniglot", 20, 7), "prototypical-omniglot"),
        (("prototypical", "omniglot-alphabets", 20, 5), "prototypical-omniglot-alphabets"),
        (("matching", "omniglot", 5, 5), "matching-omniglot"),
        (("matching", "omniglot", 5, 1, "full_context"), "matching-omniglot-full_context"),
        (("matching", "omniglot", 5, 5, "full_context"), "matching-omniglot-full_context-5s"),
        (("maml", "omniglot", 5, 1), "maml-omniglot-5w1s"),
        (("maml", "omniglot", 5, 1, "first_order"), "maml-omniglot-first_order-5w1s"),
        (("maml", "sinusoids"), "maml-sinusoids"),
        (("reptile", "omniglot", 5, 1), "reptile-omniglot-5w"),  # one training for all shots
        (("reptile", "omniglot", 5, 5), "reptile-omniglot-5w"),
    ],
)
def test_shipped_weights_are_found_by_method_data_variant_way_and_shot(on_offer, arguments, name):
    *which, variant = (*arguments, None) if len(arguments) < 5 else arguments
    assert shipped_name(*which, variant=variant) == name
    assert card(*which, variant=variant) == {"name": name}
    learner = pretrained(*which, variant=variant)
    assert type(learner) is type(make(name.split("-")[0]))
    assert getattr(learner, "full_context", False) == ("full_context" in name)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (("maml", "omniglot"), "maml-omniglot"),
        (("maml", "omniglot", 20, 1), "maml-omniglot-20w1s"),
        (("maml", "omniglot", 5), "maml-omniglot"),
        (("reptile", "omniglot", 20, 1), "reptile-omniglot-20w1s"),
        (("maml", "sinusoids", 5, 1), "maml-sinusoids-5w1s"),
        (("prototypical", "omniglot", 5, 1, "full_context"), "prototypical-omniglot-full_context"),
        (("prototypical", "icons"), "prototypical-icons"),
        (("../prototypical", "omniglot"), "../prototypical-omniglot"),
    ],
)
def test_what_is_not_shipped_is_answered_with_what_is(on_offer, arguments, name):
    *which, variant = (*arguments, None) if len(arguments) < 5 else arguments
    for call in (shipped_name, card, pretrained):
        with pytest.raises(ValueError, match=f"no weights are shipped as '{re.escape(name)}'") as error:
            call(*which, variant=variant)
        assert ", ".join(sorted(NAMES)) in str(error.value)


def test_evaluate_takes_the_weights_that_pretrained_would(on_offer, capsys):
    words = [
        "--data",
        "icons",
        "--split",
        "all",
        "--query",
        "2",
        "--episodes",
        "2",
        "--trained-on",
        "omniglot",
        "--json",
    ]
    for more, name in (
        (["--shot", "5"], "matching-omniglot"),
        (["--shot", "5", "--variant", "full_context"], "matching-omniglot-full_context-5s"),
    ):
        assert main(["evaluate", "matching", *words, *more]) == 0
        assert json.loads(capsys.readouterr().out)["weights"] == name


def test_what_is_shipped_is_listed():
    assert {"prototypical-glyphs", "maml-glyphs-5w1s", "maml-sinusoids"} <= set(shipped())
    assert not any(
        name.startswith(("hallucination", "maml_rl", "recurrent_rl")) for name in shipped()
    )  # nets that draw name no class


SHIPPED = sorted(asset("checksums.json").parent.glob("checkpoints/*.safetensors"))


def test_something_is_shipped():
    assert SHIPPED


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_shipped_weights_are_small_and_have_a_card(path):
    assert path.stat().st_size <= 1_000_000
    card = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    own = tuple(f"python -m tools.results.train_{name} " for name in ("sine", "in_context", "hallucination", "acting"))
    assert card["command"].startswith(("python -m fsl_course train ", *own))
    assert card["seed"] >= 0
    assert f"checkpoints/{path.name}" in json.loads(asset("checksums.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("method", "promise"),
    [
        ("prototypical", 0.96),
        ("siamese", 0.90),
        ("matching", 0.90),
        ("relation", 0.90),
        ("transfer", 0.95),
        ("in_context", 0.965),
    ],
)
def test_shipped_weights_keep_their_promise(method, promise):
    """Accuracy on 5-way 1-shot episodes of scripts never seen, every query judged alone; and what the card says."""
    result = evaluate(pretrained(method, "glyphs"), EpisodeSampler(load_glyphs().split("test"), 5, 1, 15), 600)
    assert result.mean >= promise
    assert not result.transductive
    row = next(r for r in card(method, "glyphs")["test"] if (r["way"], r["shot"]) == (5, 1))
    assert result.mean == pytest.approx(row["mean"], abs=2e-4)  # other machines may round a query or two differently


@pytest.mark.parametrize(("shot", "promise"), [(1, 0.89), (5, 0.95)])
def test_shipped_maml_keeps_its_promise(shot, promise):
    """As above for weights with a head: 5-way, of the shot they were trained on."""
    sampler = EpisodeSampler(load_glyphs().split("test"), 5, shot, 15)
    found = evaluate(pretrained("maml", "glyphs", 5, shot), sampler, 40)
    (row,) = card("maml", "glyphs", 5, shot)["test"]
    assert found.mean >= promise - found.ci95
    assert abs(found.mean - row["mean"]) < found.ci95 + row["ci95"]


def test_shipped_sine_weights_keep_their_promise():
    """After 1 and 10 steps on 5 points; the net of pretraining stays far behind (Finn et al. 2017, appendix C)."""
    rows = {(r["learner"], r["shot"], r["steps"]): r for r in card("maml", "sinusoids")["test"]}
    learner = pretrained("maml", "sinusoids")
    for steps in (1, 10):
        learner.test_steps = steps
        found = evaluate(learner, SinusoidSampler(5, 100, seed=1), 200, metric="mse")
        row = rows["maml", 5, steps]
        assert abs(found.mean - row["mse"]) < found.ci95 + row["ci95"]
        assert found.mean < 1 < rows["pretraining", 5, steps]["mse"]


def test_damaged_shipped_weights_are_refused(tmp_path, monkeypatch):
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    (folder / "prototypical-glyphs.safetensors").write_bytes(SHIPPED[0].read_bytes()[:-1] + b"x")
    (tmp_path / "checksums.json").write_bytes(asset("checksums.json").read_bytes())
    monkeypatch.setattr(assets, "_IN_WHEEL", tmp_path)
    with pytest.raises(ValueError, match="damaged: its SHA-256"):
        pretrained("prototypical", "glyphs")
