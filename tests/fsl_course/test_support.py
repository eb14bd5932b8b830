"""What a learner has read: the answers of `evaluate`, calibration by leaving one out, and near pictures, for all methods."""

from __future__ import annotations

import pytest
import torch

from fsl_course.classifier import FewShotClassifier
from fsl_course.data import load_glyphs
from fsl_course.episodes import EpisodeSampler
from fsl_course.evaluation import evaluate
from fsl_course.methods.baselines import PixelNearestNeighbour
from fsl_course.methods.transfer import FineTuneAll
from fsl_course.nets import conv4
from fsl_course.support import read_support
from fsl_course.weights.checkpoints import pretrained
from fsl_course.weights.learners import MAKERS, OWN_SETTINGS, has_head, make, reads_descriptions
from tests.conftest import settled, toy_images


def learner_of(method: str) -> torch.nn.Module:
    torch.manual_seed(0)
    if method == "pixels":
        return PixelNearestNeighbour()
    if method == "fine-tuning":
        return FineTuneAll(conv4(4), steps=2)
    made = make(method, width=8, **({"inner_steps": 2} if "inner_steps" in OWN_SETTINGS.get(method, {}) else {}))
    return made if has_head(method) else settled(made, EpisodeSampler(toy_images(), 5, 2, 3)[0])


@pytest.mark.parametrize(
    "method", [*(name for name in MAKERS if not reads_descriptions(name) and name != "dense"), "pixels", "fine-tuning"]
)
def test_accuracies_are_those_of_evaluate_on_the_same_episodes(method):
    """The names follow the slots, to which a trained head is bound."""
    sampler, learner = EpisodeSampler(toy_images(noise=200), 5, 2, 3), learner_of(method)
    found = []
    for episode in sampler.batch(0, 4):
        clf = FewShotClassifier(learner).fit(episode.support_x, [f"slot {y}" for y in episode.support_y.tolist()])
        found.append(clf.score(episode.query_x, [f"slot {y}" for y in episode.query_y.tolist()]))
        with torch.no_grad():
            expected = learner.eval()(episode)
        torch.testing.assert_close(clf.decision_function(episode.query_x), expected, atol=1e-4, rtol=1e-4)
    assert found == evaluate(learner, sampler, 4).per_episode.tolist()


@pytest.mark.parametrize("method", ["prototypical", "siamese", "matching", "relation", "transfer"])
def test_shipped_weights_name_glyphs_as_evaluate_counts(method):
    sampler, learner = EpisodeSampler(load_glyphs().split("test"), 5, 1, 3, seed=3), pretrained(method, "glyphs")
    found = []
    for episode in sampler.batch(0, 5):
        names = [str(y) for y in episode.support_y.tolist()]
        clf = FewShotClassifier(learner).fit(episode.support_x, names)
        found.append(clf.score(episode.query_x, [str(y) for y in episode.query_y.tolist()]))
    assert found == evaluate(learner, sampler, 5).per_episode.tolist()
    assert sum(found) / 5 > 0.7


@pytest.mark.parametrize("method", [method for method in MAKERS if has_head(method)])
def test_methods_with_a_fixed_head_say_how_many_classes_they_serve(method):
    source, learner = toy_images(), learner_of(method)
    with pytest.raises(ValueError, match="has a head for 5 classes, and there are 3: give it 5, or take a method"):
        FewShotClassifier(learner).fit(source.images[:3, 0], ["a", "b", "c"])
    clf = FewShotClassifier(learner).fit(source.images[:5, 0], list("abcde"))
    assert clf.predict_proba(source.images[:5, 1]).shape == (5, 5)


@pytest.mark.parametrize("method", ["maml", "anil", "reptile", "meta_sgd", "meta_lstm"])
def test_a_learner_that_adapts_does_so_once(method, monkeypatch):
    learner, source = learner_of(method), toy_images()
    calls, adapted = [], learner.adapted
    monkeypatch.setattr(type(learner), "adapted", lambda self, episode: calls.append(1) or adapted(episode))
    clf = FewShotClassifier(learner).fit(source.images[:5, 0], list("abcde"))
    for _ in range(3):
        clf.predict(source.images[:5, 1])
        clf.nearest(source.images[:5, 1])
    assert calls == [1]


def test_the_support_is_embedded_once(monkeypatch):
    learner, source, seen = learner_of("prototypical"), toy_images(), []
    embed = learner.embed
    monkeypatch.setattr(type(learner), "embed", lambda self, x: seen.append(len(x)) or embed(x))
    clf = FewShotClassifier(learner).fit(source.images[:5, :2].flatten(0, 1), list("aabbccddee"))
    seen.clear()
    clf.predict(source.images[:1, 3])
    clf.calibrate()
    assert seen == [1]


@pytest.mark.parametrize("method", ["prototypical", "relation", "matching", "anil", "pixels", "fine-tuning"])
def test_leaving_one_out_is_a_classifier_that_never_saw_it(method):
    learner, images = learner_of(method), toy_images(classes=5).images[:, :2].flatten(0, 1)
    labels = torch.arange(5).repeat_interleave(2)
    scores = read_support(learner, images, labels, 5).left_out()
    for row in (0, 7):
        rest = torch.arange(10) != row
        names = [f"slot {y}" for y in labels[rest].tolist()]
        clf = FewShotClassifier(learner).fit(images[rest], names)
        torch.testing.assert_close(scores[row], clf.decision_function(images[row][None])[0], atol=1e-5, rtol=1e-5)


def test_pictures_of_no_class_get_no_name_once_calibrated():
    source, learner = load_glyphs().split("test"), pretrained("prototypical", "glyphs")
    known, unknown = source.images[:20:4, :10], source.images[1:40:4, :3]
    names = [source.class_names[c] for c in range(0, 20, 4) for _ in range(5)]
    clf = FewShotClassifier(learner).fit(known[:, :5].flatten(0, 1), names)
    right = [source.class_names[c] for c in range(0, 20, 4) for _ in range(5)]
    assert clf.threshold_ is None
    assert None not in clf.predict(unknown.flatten(0, 1))
    before = clf.predict_proba(unknown.flatten(0, 1))
    assert clf.calibrate() is clf
    assert torch.equal(before, clf.predict_proba(unknown.flatten(0, 1)))
    refused = clf.predict(unknown.flatten(0, 1))
    assert refused.count(None) / len(refused) > 0.6
    assert clf.score(known[:, 5:].flatten(0, 1), right) > 0.8
    strict = clf.calibrate(0.5).threshold_
    assert strict == pytest.approx(float(clf._support.left_out().max(1).values.mean()))
    assert clf.calibrate(0.01).threshold_ < clf.calibrate(0.1).threshold_ < strict
    held = clf.decision_function(known[:, 5:].flatten(0, 1)).max(1).values
    low = clf.calibrate(0.05, known[:, 5:].flatten(0, 1)).threshold_
    assert low == pytest.approx(float(held.mean() - 1.7109 * held.std() * (1 + 1 / 25) ** 0.5), rel=1e-4)  # t(0.05, 24)


def test_a_threshold_of_ones_own_is_the_lowest_best_score():
    source, learner = toy_images(), learner_of("prototypical")
    clf = FewShotClassifier(learner).fit(source.images[:2, 0], ["a", "b"])
    best = clf.decision_function(source.images[:2, 1]).max(1).values
    assert best[0] != best[1]
    clf = FewShotClassifier(learner, threshold=float(best.mean())).fit(source.images[:2, 0], ["a", "b"])
    assert clf.predict(source.images[:2, 1]).count(None) == 1


@pytest.mark.parametrize("share", [-0.1, 0, 1, 1.5, True, "0.05", None])
def test_a_share_is_a_fraction(share):
    clf = FewShotClassifier(PixelNearestNeighbour()).fit(toy_images().images[:2, :2].flatten(0, 1), list("aabb"))
    with pytest.raises(ValueError, match="share is a fraction"):
        clf.calibrate(share)


def test_calibration_needs_two_pictures_of_every_class():
    source = toy_images()
    clf = FewShotClassifier(PixelNearestNeighbour()).fit(source.images[:2, :2].flatten(0, 1)[:3], ["ant", "ant", "bee"])
    with pytest.raises(ValueError, match="at least two. There is only one of bee:"):
        clf.calibrate()
    assert clf.threshold_ is None
    with pytest.raises(ValueError, match="at least two held-out pictures of these classes; got 1"):
        clf.calibrate(pictures=source.images[:1, 4])
    assert clf.calibrate(pictures=source.images[:2, 4]).threshold_ is not None


@pytest.mark.parametrize("method", ["prototypical", "maml", "anil", "pixels"])
def test_the_nearest_support_pictures_come_first_and_the_same_picture_is_at_distance_0(method):
    learner, images = learner_of(method), toy_images().images[:5, :2].flatten(0, 1)
    names = [f"class {i // 2}" for i in range(10)]
    clf = FewShotClassifier(learner).fit(images, names)
    for row, near in enumerate(clf.nearest(images)):
        assert len(near) == 3
        assert near[0].distance == pytest.approx(0, abs=1e-4)
        assert near[0].index == row
        assert near[0].name == names[row]
        assert [n.distance for n in near] == sorted(n.distance for n in near)
    assert len(clf.nearest(images[:1], count=50)[0]) == 10
    distances = (clf.features(images[:1]) - clf.support_features_).square().sum(1).sqrt()
    for neighbour in clf.nearest(images[:1], count=10)[0]:
        assert neighbour.distance == pytest.approx(float(distances[neighbour.index]), abs=1e-4)


def test_adapted_features_are_the_input_of_the_adapted_head():
    learner, source = learner_of("maml"), toy_images()
    clf = FewShotClassifier(learner).fit(source.images[:5, 0], list("abcde"))
    head = clf._support.params
    scores = clf.features(source.images[:5, 1]) @ head["head.weight"].T + head["head.bias"]
    torch.testing.assert_close(scores, clf.decision_function(source.images[:5, 1]), atol=1e-5, rtol=1e-5)
