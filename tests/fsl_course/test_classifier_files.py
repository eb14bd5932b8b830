"""Classifiers as estimators that can be cloned, and on disk."""

from __future__ import annotations

import copy
import inspect
import json
import pickle

import pytest
import torch
from sklearn.base import clone

from fsl_course.classifier import FewShotClassifier
from fsl_course.episodes import EpisodeSampler
from fsl_course.evaluation import evaluate
from fsl_course.methods.baselines import PixelNearestNeighbour
from fsl_course.methods.prototypical import PrototypicalNetwork
from fsl_course.nets import conv4
from fsl_course.weights.checkpoints import CheckpointError, load_file, load_learner, save_file, save_learner
from fsl_course.weights.learners import MAKERS, OWN_SETTINGS, make, reads_descriptions
from tests.conftest import toy_images
from tests.fsl_course.test_classifier import SHAPES, drawing


def fitted(method: str = "prototypical", **settings) -> FewShotClassifier:
    """A small classifier of five classes, two pictures each."""
    torch.manual_seed(0)
    learner = make(
        method, width=4, **({"inner_steps": 1} if "inner_steps" in OWN_SETTINGS.get(method, {}) else {}), **settings
    )
    return FewShotClassifier(learner).fit(toy_images().images[:5, :2].flatten(0, 1), [c for c in "abcde" for _ in "12"])


# --- as scikit-learn's estimators


def test_parameters_are_the_arguments_of_the_constructor_unchanged():
    learner = PixelNearestNeighbour()
    clf = FewShotClassifier(learner, size=20, channels=1, invert=True, threshold=-3.0)
    assert list(clf.get_params()) == list(inspect.signature(FewShotClassifier).parameters)
    assert clf.get_params() == {"learner": learner, "size": 20, "channels": 1, "invert": True, "threshold": -3.0}
    assert clf.get_params()["learner"] is learner
    assert clf.set_params(size=None, invert="auto") is clf
    assert (clf.size, clf.invert) == (None, "auto")
    with pytest.raises(ValueError, match="no parameter 'depth': choose from learner, size"):
        clf.set_params(depth=3)


def test_it_can_be_cloned():
    clf = fitted()
    twin = clone(clf)
    assert not hasattr(twin, "classes_")
    assert twin.learner is not clf.learner
    assert {k: v for k, v in twin.get_params().items() if k != "learner"} == {
        k: v for k, v in clf.get_params().items() if k != "learner"
    }
    images = toy_images().images[:5]
    twin.fit(images[:, :2].flatten(0, 1), [c for c in "abcde" for _ in "12"])
    assert torch.equal(twin.decision_function(images[:, 3]), clf.decision_function(images[:, 3]))


def test_it_can_be_cloned_without_scikit_learn():
    """What its clone does: the same class with copies of the parameters, which must arrive as the very objects given."""
    clf = fitted()
    params = copy.deepcopy(clf.get_params())
    twin = FewShotClassifier(**params)
    assert all(twin.get_params()[name] is value for name, value in params.items())
    images = toy_images().images[:5]
    twin.fit(images[:, :2].flatten(0, 1), [c for c in "abcde" for _ in "12"])
    assert torch.equal(twin.decision_function(images[:, 3]), clf.decision_function(images[:, 3]))


# --- on disk


@pytest.mark.parametrize("method", [name for name in MAKERS if not reads_descriptions(name) and name != "dense"])
def test_a_saved_classifier_answers_as_before(method, tmp_path):
    clf, queries = fitted(method).calibrate(0.3), toy_images().images[:5, 4]
    clf.save(tmp_path / "mine.safetensors")
    again = FewShotClassifier.load(tmp_path / "mine.safetensors")
    assert torch.equal(again.decision_function(queries), clf.decision_function(queries))
    assert again.predict(queries) == clf.predict(queries)
    assert again.nearest(queries) == clf.nearest(queries)
    assert (again.classes_, again.threshold_, again.sources_) == (clf.classes_, clf.threshold_, clf.sources_)
    assert again.size == 28


def test_inversion_and_paths_are_kept(tmp_path):
    for shape in SHAPES:
        drawing(shape).save(tmp_path / f"{shape}.png")
    paths = [tmp_path / f"{shape}.png" for shape in SHAPES]
    clf = FewShotClassifier(make("prototypical", width=4)).fit(paths, SHAPES)
    clf.save(tmp_path / "mine.safetensors")
    again = FewShotClassifier.load(tmp_path / "mine.safetensors")
    assert again.inverted_
    assert again.sources_ == [str(path) for path in paths]
    query = [drawing("ring", shift=2)]
    assert torch.equal(again.pictures(query), clf.pictures(query))
    tensor = torch.rand(1, 1, 28, 28)
    assert torch.equal(again.pictures(tensor), clf.pictures(tensor))


def test_the_file_is_no_pickle_and_still_holds_a_learner(tmp_path):
    clf = fitted()
    clf.save(tmp_path / "mine.safetensors")
    with pytest.raises(pickle.UnpicklingError):
        pickle.loads((tmp_path / "mine.safetensors").read_bytes())
    learner, _ = load_learner(tmp_path / "mine.safetensors")
    sampler = EpisodeSampler(toy_images(), 5, 1, 2)
    assert evaluate(learner, sampler, 3).mean == evaluate(clf.learner, sampler, 3).mean


def test_a_learner_made_by_hand_needs_what_makes_it_again(tmp_path):
    images, queries = toy_images().images[:3, 0], toy_images().images[:3, 1]
    clf = FewShotClassifier(PrototypicalNetwork(conv4(4), scale=2.0)).fit(images, list("abc"))
    with pytest.raises(ValueError, match="made by hand: say what makes it again, e.g. save"):
        clf.save(tmp_path / "mine.safetensors")
    with pytest.raises(ValueError, match="scores otherwise than this classifier"):
        clf.save(tmp_path / "mine.safetensors", method="prototypical", settings={"width": 4})
    with pytest.raises(CheckpointError, match="do not fit this learner"):
        clf.save(tmp_path / "mine.safetensors", method="prototypical", settings={"width": 8})
    assert not (tmp_path / "mine.safetensors").exists()
    clf.save(tmp_path / "mine.safetensors", method="prototypical", settings={"width": 4, "scale": 2.0})
    again = FewShotClassifier.load(tmp_path / "mine.safetensors")
    assert torch.equal(again.decision_function(queries), clf.decision_function(queries))


def test_a_learner_that_changed_after_fit_is_not_saved(tmp_path):
    clf = fitted()
    with torch.no_grad():
        clf.learner.encoder.layers[0].weight.mul_(3)
        clf.learner.encoder.layers[1].weight.mul_(3)
    with pytest.raises(ValueError, match="fit again after training"):
        clf.save(tmp_path / "mine.safetensors")
    with pytest.raises(ValueError, match="call fit"):
        FewShotClassifier(clf.learner).save(tmp_path / "mine.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_other_files_are_refused(tmp_path):
    save_learner(
        tmp_path / "bare.safetensors",
        make("prototypical", width=4),
        {"method": "prototypical", "settings": {"width": 4}},
    )
    with pytest.raises(CheckpointError, match="holds a learner without support: make FewShotClassifier"):
        FewShotClassifier.load(tmp_path / "bare.safetensors")
    with pytest.raises(CheckpointError, match="no checkpoint"):
        FewShotClassifier.load(tmp_path / "gone.safetensors")
    (tmp_path / "text.safetensors").write_text("hello")
    with pytest.raises(CheckpointError, match="not a whole checkpoint"):
        FewShotClassifier.load(tmp_path / "text.safetensors")


@pytest.mark.parametrize(
    "change",
    [
        {"classes": ["a", "b"]},
        {"classes": ["b", "a", "c", "d", "e"]},
        {"classes": ["a", "a", "c", "d", "e"]},
        {"classes": [1, 2, 3, 4, 5]},
        {"classes": None},
        {"sources": []},
        {"sources": 3},
        {"form": [28]},
        {"form": [28, 2]},
        {"form": [32, 1]},
        {"form": None},
        {"inverted": "yes"},
        {"threshold": "low"},
    ],
)
def test_a_support_that_contradicts_itself_is_refused(change, tmp_path):
    fitted().save(tmp_path / "mine.safetensors")
    tensors, about = load_file(tmp_path / "mine.safetensors")
    save_file(tmp_path / "mine.safetensors", tensors, about | change)
    with pytest.raises(CheckpointError, match="the support in .* is damaged"):
        FewShotClassifier.load(tmp_path / "mine.safetensors")
    without = {name: value for name, value in about.items() if name != next(iter(change))}
    save_file(tmp_path / "mine.safetensors", tensors, without)
    with pytest.raises(CheckpointError, match="is damaged"):
        FewShotClassifier.load(tmp_path / "mine.safetensors")


@pytest.mark.parametrize(
    "change",
    [
        {"support/images": torch.zeros(10, 1, 28, 28)},
        {"support/images": torch.zeros(9, 1, 28, 28, dtype=torch.uint8)},
        {"support/images": torch.zeros(10, 3, 28, 28, dtype=torch.uint8)},
        {"support/labels": torch.full((10,), 7)},
        {"support/labels": torch.zeros(10)},
        {"support/labels": torch.zeros(0, dtype=torch.int64)},
    ],
)
def test_tensors_of_another_form_are_refused(change, tmp_path):
    fitted().save(tmp_path / "mine.safetensors")
    tensors, about = load_file(tmp_path / "mine.safetensors")
    save_file(tmp_path / "mine.safetensors", tensors | change, json.loads(json.dumps(about)))
    with pytest.raises(CheckpointError):
        FewShotClassifier.load(tmp_path / "mine.safetensors")
