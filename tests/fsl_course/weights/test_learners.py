import inspect

import pytest
import torch

from fsl_course.methods.adapters import Adapters
from fsl_course.methods.anil import ANIL
from fsl_course.methods.dense import DensePrototypes
from fsl_course.methods.graph import GraphNetwork
from fsl_course.methods.hypernetwork import Hypernetwork
from fsl_course.methods.in_context import InContextLearner
from fsl_course.methods.induction import InductionNetwork
from fsl_course.methods.label_propagation import LabelPropagation
from fsl_course.methods.maml import MAML
from fsl_course.methods.matching import MatchingNetwork
from fsl_course.methods.meta_lstm import MetaLSTM
from fsl_course.methods.meta_sgd import MetaSGD
from fsl_course.methods.prototypical import PrototypicalNetwork
from fsl_course.methods.relation import RelationNetwork
from fsl_course.methods.reptile import Reptile
from fsl_course.methods.ridge import RidgeRegression
from fsl_course.methods.siamese import SiameseNetwork
from fsl_course.methods.simple_shot import SimpleShot
from fsl_course.methods.soft_kmeans import SoftKMeans
from fsl_course.methods.transfer import TransferNetwork
from fsl_course.methods.unsupervised import ProtoCLR
from fsl_course.methods.zero_shot import ZeroShot
from fsl_course.weights.learners import EMBEDS, MAKERS, OWN_SETTINGS, SETTINGS, has_head, make, settings_of
from tests.conftest import toy_images

ADAPTS = {"net": "conv4", "n_way": 5, "inner_lr": 0.05, "inner_steps": 2}
HEADED = {"maml": MAML, "anil": ANIL, "meta_sgd": MetaSGD, "reptile": Reptile, "meta_lstm": MetaLSTM}
OWN = {
    "transfer": {"n_base": 7, "head": "cosine", "classifier": "cosine"},
    "simple_shot": {"n_base": 7},
    "siamese": {"objective": "triplet"},
    "matching": {"full_context": True, "similarity": "euclidean", "scale": 2.5},
    "prototypical": {"distance": "cosine", "scale": 10.0},
    "relation": {"objective": "cross_entropy", "shots": "sum"},
    "ridge": {"l2": 0.5, "scale": 4.0},
    "hypernetwork": {"hidden": 6, "film": True},
    "soft_kmeans": {"distractors": "mask"},
    "unsupervised": {"objective": "nt_xent", "temperature": 0.2},
    "graph": {"n_way": 5, "transductive": True, "hidden": 6},
    "label_propagation": {"neighbours": 3, "sigma": 0.7, "alpha": 0.5},
    "in_context": {"features": None, "tokens": 8, "codes": 4, "layers": 1, "heads": 2, "outputs": 0},  # for pictures
    "maml": {**ADAPTS, "test_steps": 3, "first_order": True},
    "anil": {**ADAPTS, "test_steps": 3, "first_order": True},
    "meta_sgd": {**ADAPTS, "test_steps": 3},
    "reptile": {**ADAPTS, "test_steps": 3, "batch": 4},
    "meta_lstm": {**ADAPTS, "hidden": 6, "truncate": 1},
    "adapters": {"kind": "residual", "inner_lr": 0.5, "inner_steps": 3},
    "dense": {"scale": 5.0, "align": 0.0, "background": False, "weight": 1.0},
    "induction": {"slices": 3, "iterations": 2, "objective": "cross_entropy"},
    "zero_shot": {"n_attributes": 7, "joint": 5, "hidden": 3, "head": "towers"},
}
RATES = {
    ("meta_sgd", "inner_lr"),
    ("meta_lstm", "inner_lr"),
    ("meta_lstm", "hidden"),
    ("ridge", "l2"),
    ("ridge", "scale"),
}
CASES = [
    *[(method, {"n_base": 7} if "n_base" in OWN_SETTINGS.get(method, {}) else {}) for method in MAKERS],
    *OWN.items(),
    ("siamese", {"objective": "contrastive"}),
    ("matching", {"full_context": True}),
]


def test_own_settings_are_the_defaults_of_the_methods():
    """Each is an argument of the class, with the same default (n_base has none: it depends on the data).

    Methods with an inner loop: net and n_way stand for the model, inner_lr and inner_steps for lr and steps.
    """
    classes = {
        "transfer": TransferNetwork,
        "simple_shot": SimpleShot,
        "siamese": SiameseNetwork,
        "matching": MatchingNetwork,
        "prototypical": PrototypicalNetwork,
        "relation": RelationNetwork,
        "in_context": InContextLearner,
        "ridge": RidgeRegression,
        "hypernetwork": Hypernetwork,
        "soft_kmeans": SoftKMeans,
        "unsupervised": ProtoCLR,
        "graph": GraphNetwork,
        "label_propagation": LabelPropagation,
        "dense": DensePrototypes,
        "induction": InductionNetwork,
        "zero_shot": ZeroShot,
        "adapters": Adapters,
        **HEADED,
    }
    stand_for = {"net": "model", "n_way": "model", "inner_lr": "lr", "inner_steps": "steps"}
    chosen_here = {"n_base", *stand_for}
    assert set(classes) == set(OWN_SETTINGS) <= set(MAKERS)
    for method, own in OWN_SETTINGS.items():
        arguments = inspect.signature(classes[method]).parameters
        assert {name if name in arguments else stand_for.get(name, name) for name in own} <= set(arguments)
        if method in HEADED:  # left to the class: how tasks are run, and which part ANIL adapts
            assert set(arguments) - {"vmap", "head"} == {stand_for.get(name, name) for name in own}
        assert {k: v for k, v in own.items() if k not in chosen_here} == {
            k: arguments[k].default for k in own if k not in chosen_here
        }
        assert not set(own) & set(SETTINGS)
        assert set(OWN[method]) == set(own)  # the test above leaves none out


def test_methods_with_a_head_are_those_that_adapt_one_and_graph_networks():
    assert {method for method in MAKERS if has_head(method)} == {*HEADED, "graph"}
    assert not has_head("no such method")


@pytest.mark.parametrize("method", HEADED)
def test_settings_of_methods_with_a_head_follow_the_ways(method):
    settings = settings_of(method, toy_images(channels=3), 7)
    assert (settings["n_way"], settings["in_channels"]) == (7, 3)
    assert "size" not in settings
    assert settings_of(method, toy_images())["n_way"] == 5
    assert "n_way" not in settings_of("prototypical", toy_images(), 7)
    learner = make(method, width=4, **settings)
    assert type(learner) is HEADED[method]
    assert learner.model(torch.rand(2, 3, 28, 28)).shape == (2, 7)
    assert make(method, width=4, size=32, n_way=3).model(torch.rand(2, 1, 32, 32)).shape == (2, 3)


@pytest.mark.parametrize("method", HEADED)
def test_methods_with_an_inner_loop_are_made_for_pictures_and_for_curves(method):
    learner = make(method, width=4, inner_lr=0.02, inner_steps=3)
    assert learner.steps == 3
    assert learner.model.head.weight.shape == (5, 4)
    if method == "meta_sgd":
        assert all(bool((rate == 0.02).all()) for rate in learner.rates)
    elif method != "meta_lstm":
        assert learner.lr == 0.02
    assert make(method, net="mlp").model(torch.zeros(4, 1)).shape == (4, 1)
    with pytest.raises(
        ValueError, match=f'{method} cannot be made with .*net must be "conv4", or "mlp".*got \'resnet\''
    ):
        make(method, net="resnet")
    for wrong in ({"n_way": 0}, {"n_way": "five"}):
        with pytest.raises(ValueError, match="n_way must be a whole number from 1 to 10000"):
            make(method, **wrong)


def test_make_passes_settings_on_and_takes_defaults_elsewhere():
    plain, full = make("matching", width=4), make("matching", width=4, full_context=True, scale=3)
    assert (plain.full_context, plain.scale, plain.similarity) == (False, 10.0, "cosine")
    assert (full.full_context, full.scale) == (True, 3)
    relation = make("relation", width=4, norm="group", in_channels=3, shots="sum")
    assert relation.embed(torch.rand(1, 3, 28, 28)).shape == (1, 4 * 49)
    assert (relation.shots, relation.objective) == ("sum", "mse")
    assert not [m for m in relation.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    transfer = make("transfer", width=4, n_base=9, head="cosine")
    assert transfer.head.weight.shape == (9, 4)
    assert make("siamese").weight.shape == (64,)


@pytest.mark.parametrize(
    ("method", "settings", "message"),
    [
        (
            "matching",
            {"shots": "sum"},
            "matching has no setting shots: choose from width, norm, in_channels, size, halving, encoder, frozen, full",
        ),
        ("prototypical", {"objective": "bce"}, "prototypical has no setting objective: choose from width, norm, in_ch"),
        (
            "siamese",
            {"b": 1, "a": 2},
            "siamese has no setting a, b: choose from width, norm, in_channels, size, halving, encoder, frozen, obj",
        ),
        ("siamese", {"objective": "hinge"}, "objective must be one of bce, contrastive, triplet"),
        ("relation", {"shots": "max"}, 'shots must be "mean" or "sum"'),
    ],
)
def test_settings_of_another_method_and_wrong_values_are_explained(method, settings, message):
    with pytest.raises(ValueError, match=message):
        make(method, **settings)


def test_unknown_methods_and_settings_name_what_there_is():
    with pytest.raises(ValueError, match="no trainable method 'protonet': choose one of .*prototypical"):
        make("protonet")
    with pytest.raises(
        ValueError, match='no setting widht: choose from width, norm, in_channels.*Did you mean "width"'
    ):
        make("prototypical", widht=8)


def test_a_network_trained_on_photographs_goes_with_methods_that_embed_and_no_others():
    for method in MAKERS:
        for wrong in ("resnet50", ["resnet18"], None):
            with pytest.raises(ValueError, match=f"encoder must be one of conv4.* for {method}; got"):
                make(method, encoder=wrong)
        if method not in EMBEDS:
            with pytest.raises(ValueError, match="encoder must be one of conv4"):
                make(method, encoder="resnet18")


@pytest.mark.parametrize("method", EMBEDS)
@pytest.mark.parametrize("frozen", [True, False])
def test_methods_that_embed_take_it(method, frozen, monkeypatch):
    monkeypatch.setattr("fsl_course.weights.learners.bare_encoder", lambda frozen: Flat().requires_grad_(not frozen))
    settings = {"encoder": "resnet18", "frozen": frozen} | ({"n_base": 3} if "n_base" in OWN_SETTINGS[method] else {})
    learner = make(method, **settings)
    assert learner.embed(torch.rand(2, 3, 40, 40)).shape == (2, 512)
    assert all(p.requires_grad != frozen for p in learner.encoder.parameters())
    assert learner.made_from == {"method": method, "settings": settings}


class Flat(torch.nn.Module):
    """Stands for the ResNet: as many features, of pictures of any size."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Conv2d(3, 512, 1)

    def forward(self, x):
        return self.layer(x).mean((2, 3))
