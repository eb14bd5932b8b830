"""Makes every learner by its name and settings. A new method is one more line of MAKERS."""

from collections.abc import Callable
from typing import Any

from torch import nn

from fsl_course._system.nearest import did_you_mean
from fsl_course.data import ImageSet
from fsl_course.data.texts import TextSet
from fsl_course.methods.adapters import Adapters
from fsl_course.methods.anil import ANIL
from fsl_course.methods.base import FewShotLearner
from fsl_course.methods.dense import DenseEncoder, DensePrototypes
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
from fsl_course.nets import classifier, conv4, gru_encoder, mlp, ngram_encoder
from fsl_course.photographs import FEATURES, bare_encoder

# The default settings of all learners, and the settings that only one method has. inner_lr, inner_steps and test_steps are lr,
# steps and test_steps of the class; their names differ because on the command line the plain ones belong to the outer loop.
# encoder "resnet18" is the network trained on photographs, in place of Conv4; frozen says whether it stays as it was.
SETTINGS: dict[str, Any] = {
    "width": 64, "norm": "batch", "in_channels": 1, "size": 28, "halving": "pool", "encoder": "conv4", "frozen": True,
}  # fmt: skip
# The methods that take any encoder.
EMBEDS = (
    "prototypical", "matching", "siamese", "simple_shot", "transfer", "ridge", "hypernetwork", "soft_kmeans", "graph",
    "label_propagation", "unsupervised",
)  # fmt: skip
ACT_IN_WORLDS = ("maml_rl", "recurrent_rl")  # lesson 21: no learners of pictures
SENTENCES: dict[str, Callable[[int], nn.Module]] = {
    "ngrams": ngram_encoder,
    "gru": gru_encoder,
}  # encoders of sentences
READERS = (*EMBEDS[:-1], "induction", "maml", "anil", "meta_sgd", "reptile")  # the methods that take one of these, too
SCENES = ("dense",)  # the methods that segment scenes of SceneSampler
WITHOUT_LABELS = ("unsupervised",)  # the methods that learn from tasks of PictureSampler
_ADAPTS: dict[str, Any] = {"net": "conv4", "n_way": 5, "inner_lr": 0.1, "inner_steps": 5, "test_steps": None}
OWN_SETTINGS: dict[str, dict[str, Any]] = {
    "transfer": {"n_base": 0, "head": "linear", "classifier": "centroid"},
    "simple_shot": {"n_base": 0},
    "siamese": {"objective": "bce"},
    "matching": {"full_context": False, "similarity": "cosine", "scale": None},
    "prototypical": {"distance": "euclidean", "scale": 1.0},
    "relation": {"objective": "mse", "shots": "mean"},
    "ridge": {"l2": 10.0, "scale": 10.0},
    "hypernetwork": {"hidden": 64, "film": False},
    "soft_kmeans": {"distractors": "none"},
    "maml": {**_ADAPTS, "first_order": False},
    "anil": {**_ADAPTS, "first_order": False},
    "meta_sgd": _ADAPTS,
    "reptile": {**_ADAPTS, "batch": None},
    "meta_lstm": {"net": "conv4", "n_way": 5, "inner_lr": 0.1, "inner_steps": 5, "hidden": 20, "truncate": None},
    "in_context": {"features": None, "tokens": 88, "codes": 24, "layers": 2, "heads": 1, "outputs": 0},
    "graph": {"n_way": 5, "transductive": False, "hidden": 48},
    "label_propagation": {"neighbours": 10, "sigma": 0.3, "alpha": 0.9},
    "unsupervised": {"objective": "prototypes", "temperature": 0.5},
    "adapters": {"kind": "film", "inner_lr": 0.01, "inner_steps": 20},
    "induction": {"slices": 8, "iterations": 3, "objective": "mse"},
    "dense": {"scale": 20.0, "align": 1.0, "background": True, "weight": 2.0},
    "zero_shot": {"n_attributes": 36, "joint": 64, "hidden": 0, "head": "prototypes"},
}

# The smallest and largest value of every whole-numbered setting: neither a typing error nor a foreign file may take all memory.
LIMITS: dict[str, tuple[int, int]] = {
    "width": (1, 1024), "in_channels": (1, 64), "size": (16, 1024), "n_way": (1, 10_000), "n_base": (0, 1_000_000),
    "inner_steps": (0, 10_000), "test_steps": (0, 10_000), "batch": (1, 1_000_000), "hidden": (1, 1024),
    "truncate": (1, 10_000), "neighbours": (1, 10_000), "n_attributes": (1, 10_000), "joint": (1, 1024),
    "slices": (1, 256), "iterations": (1, 100),
}  # fmt: skip


def _conv4(s: dict[str, Any]) -> nn.Module:
    return conv4(s["width"], s["norm"], s["in_channels"], s["halving"])


def _encoder(s: dict[str, Any]) -> nn.Module:
    if s["encoder"] in SENTENCES:
        return SENTENCES[s["encoder"]](_features(s))
    return bare_encoder(s["frozen"]) if s["encoder"] == "resnet18" else _conv4(s)


def _features(s: dict[str, Any]) -> int:
    if s["encoder"] == "resnet18":
        return FEATURES
    if s["encoder"] in SENTENCES:
        return 2 * s["width"]
    return s["width"] * (1 if s["halving"] == "stride" else (s["size"] // 16) ** 2)


def _classifier(s: dict[str, Any], own: dict[str, Any]) -> nn.Module:
    """Makes what methods with a trained head adapt: Conv4 with that head, or the regressor of sine curves."""
    if own["net"] not in ("conv4", "mlp"):
        raise TypeError(f'net must be "conv4", or "mlp" for sine curves; got {own["net"]!r}')
    return mlp() if own["net"] == "mlp" else classifier(_encoder(s), own["n_way"], _features(s))


def _in_context(s: dict[str, Any], own: dict[str, Any]) -> FewShotLearner:
    """Makes the learner that reads its support. With a number of features its inputs are rows of numbers, not pictures."""
    encoder = nn.Identity() if own["features"] else _encoder(s)
    made = InContextLearner(encoder, **own | {"features": own["features"] or _features(s)})
    made.features = own["features"]  # None: as many as the encoder makes
    return made


def _adapts(learner: Callable[..., FewShotLearner], *more: str) -> Callable[[dict, dict], FewShotLearner]:
    """Returns the maker of a method with an inner loop. more: settings that its class takes by the same name."""

    def maker(s: dict[str, Any], own: dict[str, Any]) -> FewShotLearner:
        named = {name: own[name] for name in more}
        return learner(_classifier(s, own), lr=own["inner_lr"], steps=own["inner_steps"], **named)

    return maker


# How each method is made from the common settings and its own settings, as its checkpoint has them.
MAKERS: dict[str, Callable[[dict[str, Any], dict[str, Any]], FewShotLearner]] = {
    "transfer": lambda s, own: TransferNetwork(_encoder(s), features=_features(s), **own),
    "simple_shot": lambda s, own: SimpleShot(_encoder(s), features=_features(s), **own),
    "siamese": lambda s, own: SiameseNetwork(_encoder(s), features=_features(s), **own),
    "matching": lambda s, own: MatchingNetwork(_encoder(s), features=_features(s), **own),
    "prototypical": lambda s, own: PrototypicalNetwork(_encoder(s), **own),
    "relation": lambda s, own: RelationNetwork(s["width"], s["norm"], s["in_channels"], size=s["size"], **own),
    "ridge": lambda s, own: RidgeRegression(_encoder(s), **own),
    "hypernetwork": lambda s, own: Hypernetwork(_encoder(s), features=_features(s), **own),
    "soft_kmeans": lambda s, own: SoftKMeans(_encoder(s), **own),
    "maml": _adapts(MAML, "first_order", "test_steps"),
    "anil": _adapts(ANIL, "first_order", "test_steps"),
    "meta_sgd": _adapts(MetaSGD, "test_steps"),
    "reptile": _adapts(Reptile, "batch", "test_steps"),
    "meta_lstm": _adapts(MetaLSTM, "hidden", "truncate"),
    "in_context": _in_context,
    "graph": lambda s, own: GraphNetwork(_encoder(s), features=_features(s), **own),
    "label_propagation": lambda s, own: LabelPropagation(_encoder(s), **own),
    "unsupervised": lambda s, own: ProtoCLR(_encoder(s), **own),
    "adapters": lambda s, own: Adapters(_encoder(s), own["kind"], own["inner_lr"], own["inner_steps"]),
    "induction": lambda s, own: InductionNetwork(_encoder(s), features=_features(s), **own),
    "dense": lambda s, own: DensePrototypes(
        DenseEncoder(*(s[n] for n in ("width", "norm", "in_channels", "frozen"))), **own
    ),
    "zero_shot": lambda s, own: ZeroShot(_conv4(s), features=_features(s), **own),
}


def reads_descriptions(method: str) -> bool:
    """Returns True for methods that know a class by its description, which only some data have."""
    return "n_attributes" in OWN_SETTINGS.get(method, {})


def reads_sentences(learner: FewShotLearner) -> bool:
    """Returns True for a learner that `make` made with an encoder of sentences."""
    return ((learner.made_from or {}).get("settings") or {}).get("encoder") in SENTENCES


def has_head(method: str) -> bool:
    """Returns True for methods that train a head of n_way outputs: their weights serve only one number of ways."""
    return "n_way" in OWN_SETTINGS.get(method, {})


def settings_of(method: str, source: ImageSet, way: int = 5) -> dict[str, Any]:
    """Returns the settings that follow from the training tasks: channels of the pictures, size if it is not 28, base classes.

    Methods with a trained head also get n_way.
    """
    pictures = not isinstance(source, TextSet)
    settings: dict[str, Any] = {"in_channels": source.images.shape[2]} if pictures else {"encoder": "ngrams"}
    if pictures and (size := source.images.shape[-1]) != SETTINGS["size"]:
        settings["size"] = size
    if "n_base" in OWN_SETTINGS.get(method, {}):  # a head that covers the classes to train on
        settings["n_base"] = len(source.split("train"))
    if has_head(method):
        settings["n_way"] = way
    if reads_descriptions(method) and source.attributes is not None:
        settings["n_attributes"] = source.attributes.shape[1]
    return settings


def check_method(method: object) -> None:
    """Raises ValueError, with the methods that there are, if this is no trainable method."""
    if method in ACT_IN_WORLDS:
        raise ValueError(
            f"{method} acts in worlds and judges no pictures: python -m tools.results.train_acting trains it."
        )
    if not isinstance(method, str) or method not in MAKERS:
        there_is, near = ", ".join(sorted(MAKERS)), did_you_mean(method, sorted(MAKERS))
        raise ValueError(f"there is no trainable method {method!r:.60}: choose one of {there_is}.{near}")


def make(method: str, /, **settings: Any) -> FewShotLearner:
    """Makes a new learner. method: the name of its file; settings: those of SETTINGS and the method's OWN_SETTINGS.

    Raises ValueError for an unknown method or setting, with those that there are, and for an impossible value.
    """
    check_method(method)
    own = OWN_SETTINGS.get(method, {})
    if unknown := sorted(set(settings) - set(SETTINGS) - set(own)):
        there_is, near = ", ".join([*SETTINGS, *own]), did_you_mean(unknown[0], [*SETTINGS, *own])
        raise ValueError(f"{method} has no setting {', '.join(unknown):.60}: choose from {there_is}.{near}")
    for name, value in settings.items():
        _check(name, value, (SETTINGS | own)[name])
    encoders = ["conv4", *["resnet18"] * (method in EMBEDS), *(SENTENCES if method in READERS else ())]
    if (got := settings.get("encoder", "conv4")) not in encoders:
        raise ValueError(f"encoder must be one of {', '.join(encoders)} for {method}; got {got!r:.60}.")
    common, own = ({name: settings.get(name, default) for name, default in d.items()} for d in (SETTINGS, own))
    try:
        learner = MAKERS[method](common, own)
    except (TypeError, RuntimeError) as error:  # a list where a word should be, or more than fits into the memory
        raise ValueError(f"{method} cannot be made with {settings!s:.300}: {error}") from error
    learner.made_from = {"method": method, "settings": settings}
    return learner


def _check(name: str, value: Any, default: Any) -> None:
    """Raises ValueError if a setting is not of its default's kind or is out of bounds. The classes check strings themselves."""
    if value is None and default is None:
        return
    if isinstance(default, bool) and not isinstance(value, bool):
        raise ValueError(f"{name} must be True or False; got {value!r:.60}.")
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if name in LIMITS:
        low, high = LIMITS[name]
        if not (number and isinstance(value, int) and low <= value <= high):
            raise ValueError(f"{name} must be a whole number from {low} to {high}; got {value!r:.60}.")
    elif isinstance(default, float) and not (number and 0 <= value <= 1e30):  # well inside the range of float32
        raise ValueError(f"{name} must be a number from 0 to 1e30; got {value!r:.60}.")
