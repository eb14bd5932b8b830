"""Naming pictures by a few examples: inputs of every kind, answers, errors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

import fsl_course
from fsl_course import FewShotClassifier
from fsl_course.episodes import Episode, EpisodeSampler
from fsl_course.methods.baselines import Chance, PixelNearestNeighbour
from fsl_course.methods.prototypical import PrototypicalNetwork
from fsl_course.methods.transfer import FineTuneAll
from fsl_course.nets import conv4
from fsl_course.weights.learners import make
from tests.conftest import settled, toy_images


def drawing(shape: str, shift: int = 0, ink: int = 0, paper: int = 255, mode: str = "L") -> Image.Image:
    """A ring, a cross or a bar of ink on paper, 60 x 50 pixels."""
    picture = Image.new(mode, (60, 50), paper if mode == "L" else (paper,) * 3)
    pen = ImageDraw.Draw(picture)
    colour = ink if mode == "L" else (ink,) * 3
    left, top = 12 + shift, 8 + shift
    if shape == "ring":
        pen.ellipse((left, top, left + 30, top + 30), outline=colour, width=4)
    elif shape == "cross":
        pen.line((left, top, left + 30, top + 30), fill=colour, width=4)
        pen.line((left + 30, top, left, top + 30), fill=colour, width=4)
    else:
        pen.rectangle((left, top + 12, left + 30, top + 18), fill=colour)
    return picture


SHAPES = ("ring", "cross", "bar")


@pytest.fixture
def pixels() -> FewShotClassifier:
    """A classifier that compares pixels and was given one drawing of each shape."""
    return FewShotClassifier(PixelNearestNeighbour("euclidean")).fit([drawing(shape) for shape in SHAPES], SHAPES)


def test_names_are_those_of_the_nearest_examples(pixels):
    assert pixels.classes_ == ["bar", "cross", "ring"]
    queries = [drawing(shape, shift=1) for shape in SHAPES]
    assert pixels.predict(queries) == list(SHAPES)
    assert pixels.score(queries, SHAPES) == 1
    assert pixels.score(queries, ["ring"] * 3) == pytest.approx(1 / 3)
    shares = pixels.predict_proba(queries)
    torch.testing.assert_close(shares.sum(1), torch.ones(3))
    assert shares.argmax(1).tolist() == [2, 1, 0]


def test_paths_arrays_tensors_and_pil_images_are_the_same_pictures(tmp_path, pixels):
    """All dark on light, except the tensors: "auto" takes those as they are, as samplers give them."""
    picture = drawing("cross", shift=1)
    picture.save(tmp_path / "cross.png")
    grey = np.asarray(picture)
    kinds = [
        tmp_path / "cross.png", str(tmp_path / "cross.png"), picture, picture.convert("RGB"), grey,
        np.stack([grey] * 3, -1), (grey / 255).astype(np.float32), 255 - torch.tensor(grey)[None],
        (255 - torch.tensor(grey)[None]).float() / 255,
    ]  # fmt: skip
    scores = pixels.decision_function(kinds)
    torch.testing.assert_close(scores, scores[:1].expand_as(scores))
    assert pixels.predict(kinds) == ["cross"] * len(kinds)
    fitted = FewShotClassifier(PixelNearestNeighbour()).fit(
        [*kinds, drawing("bar"), drawing("ring")], ["x"] * 9 + ["y", "z"]
    )
    assert fitted.sources_[:3] == [str(tmp_path / "cross.png")] * 2 + [None]
    assert bool((fitted.support_images_[:9] == fitted.support_images_[0]).all())


@pytest.mark.parametrize("kind", ["tensor", "array", "floats", "channels last"])
def test_a_whole_batch_is_one_tensor_or_array(kind):
    images = toy_images(classes=3, drawings=2).images
    batch = images.flatten(0, 1)
    given = {
        "tensor": batch,
        "array": batch.numpy(),
        "floats": batch.float() / 255,
        "channels last": batch.permute(0, 2, 3, 1).numpy(),
    }[kind]
    clf = FewShotClassifier(PixelNearestNeighbour(), invert=False).fit(given, list("aabbcc"))
    assert torch.equal(clf.support_images_, batch)


def test_inversion_is_decided_once_on_the_support():
    light, dark = ([drawing(s, ink=a, paper=b) for s in SHAPES] for a, b in ((0, 255), (255, 0)))
    learner = PixelNearestNeighbour("euclidean")
    on_light = FewShotClassifier(learner).fit([*light, dark[0]], [*SHAPES, "odd"])
    assert on_light.inverted_
    assert bool((on_light.support_images_[0, 0, 0] == 0).all())  # paper became 0
    assert bool((on_light.support_images_[3, 0, 0] == 255).all())  # the odd one out is turned with the others
    assert on_light.predict([light[0]]) == ["ring"]
    assert on_light.predict([dark[0]]) == ["odd"]  # a query is turned as the support was
    assert not FewShotClassifier(learner).fit(dark, SHAPES).inverted_
    assert not FewShotClassifier(learner, invert=False).fit(light, SHAPES).inverted_
    assert FewShotClassifier(learner, invert=True).fit(dark, SHAPES).inverted_
    tensors = [torch.full((1, 28, 28), 250, dtype=torch.uint8), torch.full((1, 28, 28), 200, dtype=torch.uint8)]
    assert torch.equal(FewShotClassifier(learner).fit(tensors, list("ab")).support_images_, torch.stack(tensors))
    turned = FewShotClassifier(learner, invert=True).fit(tensors, list("ab"))
    assert torch.equal(turned.support_images_, 255 - torch.stack(tensors))


def test_size_and_channels_are_those_of_the_learner():
    colour = make("prototypical", width=4, in_channels=3, size=32)
    clf = FewShotClassifier(colour).fit([drawing(s, mode="RGB") for s in SHAPES], SHAPES)
    assert list(clf.support_images_.shape) == [3, 3, 32, 32]
    by_hand = PrototypicalNetwork(conv4(4, in_channels=3))
    assert FewShotClassifier(by_hand).fit([drawing(s) for s in SHAPES], SHAPES).support_images_.shape[1:] == (3, 28, 28)
    tensors = torch.rand(2, 3, 40, 40)
    assert FewShotClassifier(by_hand).fit(tensors, ["a", "b"]).support_images_.shape[1:] == (3, 40, 40)
    assert FewShotClassifier(by_hand, size=20).fit(tensors, ["a", "b"]).support_images_.shape[1:] == (3, 20, 20)


def test_shots_may_differ_and_names_may_be_numpy_strings():
    source = toy_images()
    pictures = torch.cat([source.images[c, :k] for c, k in ((0, 1), (1, 4), (2, 2))])
    torch.manual_seed(0)
    names = np.array(["one"] + ["four"] * 4 + ["two"] * 2)
    learner = settled(make("prototypical", width=8), EpisodeSampler(source, 5, 2, 3)[0])
    clf = FewShotClassifier(learner).fit(pictures, names)
    assert clf.classes_ == ["four", "one", "two"]
    assert {type(name) for name in clf.classes_} == {str}
    assert clf.labels_.bincount().tolist() == [4, 1, 2]
    assert clf.predict(source.images[:3, 6]) == ["one", "four", "two"]


def test_equal_pictures_under_two_names_are_equally_likely():
    clf = FewShotClassifier(PixelNearestNeighbour()).fit([drawing(s) for s in ("bar", "ring", "ring")], ["c", "b", "a"])
    shares = clf.predict_proba([drawing("ring")])[0]
    assert float(shares[0]) == pytest.approx(float(shares[1]), abs=1e-6)
    assert float(shares[1]) > float(shares[2])


def test_of_equal_scores_the_first_name_wins():
    undecided = FineTuneAll(conv4(2), steps=0)  # its head starts at zero
    clf = FewShotClassifier(undecided).fit([drawing(s) for s in SHAPES], ["c", "b", "a"])
    assert clf.decision_function([drawing("ring")]).tolist() == [[0, 0, 0]]
    assert clf.predict([drawing("ring")] * 2) == ["a", "a"]


@pytest.mark.parametrize("method", ["prototypical", "relation", "maml", "anil", "chance"])
def test_a_query_never_depends_on_other_queries(method):
    source = toy_images()
    learner = Chance() if method == "chance" else make(method, width=4)
    clf = FewShotClassifier(learner).fit(source.images[:5, 0], list("abcde"))
    queries = source.images[:5, 3:6].flatten(0, 1)
    alone = torch.cat([clf.decision_function(query[None]) for query in queries])
    torch.testing.assert_close(clf.decision_function(queries), alone, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(clf.decision_function(queries.flip(0)).flip(0), alone, atol=1e-5, rtol=1e-5)


def test_a_learner_in_training_mode_is_neither_asked_in_it_nor_taken_out_of_it():
    learner = make("prototypical", width=4).train()
    before = {name: tensor.clone() for name, tensor in learner.state_dict().items()}
    source = toy_images()
    clf = FewShotClassifier(learner).fit(source.images[:2, 0], ["a", "b"])
    together = clf.decision_function(source.images[:2, 1])
    assert learner.training
    assert all(torch.equal(before[name], tensor) for name, tensor in learner.state_dict().items())
    episode = Episode(
        source.images[:2, 0].float() / 255,
        torch.arange(2),
        source.images[:2, 1].float() / 255,
        torch.arange(2),
        torch.arange(2),
    )
    with torch.no_grad():
        torch.testing.assert_close(together, learner.eval()(episode))


def test_no_pictures_get_no_answers(pixels):
    assert pixels.predict([]) == []
    assert pixels.predict_proba([]).shape == (0, 3)
    assert pixels.nearest([]) == []
    assert pixels.features([]).shape == (0, 784)


@pytest.mark.parametrize(
    ("pictures", "names", "error", "message"),
    [
        ([], [], ValueError, "at least two classes; got none"),
        (torch.zeros(2, 1, 28, 28), ["a", "a"], ValueError, "at least two classes; got a"),
        (torch.zeros(2, 1, 28, 28), ["a"], ValueError, "a name for each picture; got 2 pictures and 1 names"),
        (torch.zeros(2, 1, 28, 28), ["a", 3], ValueError, "names are strings of at least one letter; got 3"),
        (torch.zeros(2, 1, 28, 28), ["a", ""], ValueError, "got ''"),
        (torch.zeros(2, 1, 28, 28), "cat", ValueError, "got 2 pictures and 1 names"),
        (torch.zeros(1, 28, 28), ["a"], TypeError, r"got shape \[1, 28, 28\]. One picture: \[picture\]"),
        ("cat.png", ["a"], TypeError, r"got 'cat.png'. One picture: \[picture\]"),
        (Image.new("L", (9, 9)), ["a"], TypeError, r"One picture: \[picture\]"),
        (5, ["a"], TypeError, "pictures are a list"),
        (["nowhere.png", "b.png"], ["a", "b"], FileNotFoundError, "nowhere.png"),
        ([drawing("bar"), 7], ["a", "b"], TypeError, "picture 2 of 2: .*got int"),
        ([torch.full((1, 9, 9), 7.0)] * 2, ["a", "b"], ValueError, r"picture 1 of 2: .*floats must lie in \[0, 1\]"),
        ([torch.zeros(2, 9, 9)] * 2, ["a", "b"], ValueError, "channels must be 1 .* or 3 .*; got 2"),
        ([np.zeros((9, 9, 2), np.uint8)] * 2, ["a", "b"], ValueError, r"picture 1 of 2: .*its shape is \[9, 9, 2\]"),
        ([torch.zeros(1, 9, 9), torch.zeros(2, 9, 9)], ["a", "b"], ValueError, "picture 2 of 2: .*its shape"),
    ],
)
def test_what_cannot_be_fitted_is_named(pictures, names, error, message):
    with pytest.raises(error, match=message):
        FewShotClassifier(PixelNearestNeighbour()).fit(pictures, names)


def test_what_cannot_be_asked_is_named(pixels):
    clf = FewShotClassifier(PixelNearestNeighbour())
    for ask in (clf.predict, clf.predict_proba, clf.decision_function, clf.nearest, clf.features):
        with pytest.raises(ValueError, match=r"call fit\(pictures, names\) first"):
            ask([drawing("bar")])
    with pytest.raises(ValueError, match="call fit"):
        clf.calibrate()
    with pytest.raises(TypeError, match="learner must be a FewShotLearner.*got str"):
        FewShotClassifier("prototypical").fit(torch.zeros(2, 1, 28, 28), ["a", "b"])
    with pytest.raises(ValueError, match="size must be a whole number"):
        FewShotClassifier(PixelNearestNeighbour(), size=0).fit([drawing("bar")] * 2, ["a", "b"])
    with pytest.raises(ValueError, match="32 x 32 pixels and 1 channel.* do not fit this learner"):
        FewShotClassifier(make("maml", n_way=2, width=4), size=32).fit([drawing("bar")] * 2, ["a", "b"])
    with pytest.raises(ValueError, match="count is a whole number"):
        pixels.nearest([drawing("bar")], count=0)
    with pytest.raises(ValueError, match="score needs a name for each picture"):
        pixels.score([drawing("bar")], [])


def test_a_fit_that_fails_leaves_no_half_of_the_one_before(pixels):
    assert repr(pixels) == "FewShotClassifier(PixelNearestNeighbour: 3 pictures of bar, cross, ring)"
    with pytest.raises(FileNotFoundError):
        pixels.fit([drawing("bar"), "gone.png"], ["a", "b"])
    with pytest.raises(ValueError, match="call fit"):
        pixels.predict([drawing("bar")])
    assert repr(pixels) == "FewShotClassifier(PixelNearestNeighbour: not fitted)"
    pixels.fit([drawing("bar"), drawing("ring")], ["a", "b"])
    assert pixels.predict([drawing("ring")]) == ["b"]


def test_weights_that_are_not_finite_are_an_error():
    learner = make("prototypical", width=4)
    with torch.no_grad():
        learner.encoder.layers[0].weight.fill_(torch.nan)
    with pytest.raises((ValueError, FloatingPointError), match="not finite"):
        FewShotClassifier(learner).fit(torch.rand(2, 1, 28, 28), ["a", "b"]).predict(torch.rand(1, 1, 28, 28))


def test_the_package_offers_it():
    assert "FewShotClassifier" in fsl_course.__all__
