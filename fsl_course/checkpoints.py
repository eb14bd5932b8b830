"""Weights on disk: files of a training run, and the trained weights that ship with the course. Never a pickle.

A file is safetensors: named tensors and, in its header, one JSON text. It is written whole or not at all.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from fsl_course.data import ImageSet
from fsl_course.data.assets import asset, verified
from fsl_course.files import replace_file
from fsl_course.methods.anil import ANIL
from fsl_course.methods.base import FewShotLearner
from fsl_course.methods.maml import MAML
from fsl_course.methods.matching import MatchingNetwork
from fsl_course.methods.meta_lstm import MetaLSTM
from fsl_course.methods.meta_sgd import MetaSGD
from fsl_course.methods.prototypical import PrototypicalNetwork
from fsl_course.methods.relation import RelationNetwork
from fsl_course.methods.reptile import Reptile
from fsl_course.methods.siamese import SiameseNetwork
from fsl_course.methods.transfer import TransferNetwork
from fsl_course.nearest import did_you_mean
from fsl_course.nets import classifier, conv4, mlp

# What every learner is made with where nothing else is said, and what one method takes besides. inner_lr, inner_steps and
# test_steps are lr, steps and test_steps of the class: on the command line the plain words are those of the outer loop.
SETTINGS: dict[str, Any] = {"width": 64, "norm": "batch", "in_channels": 1, "size": 28, "halving": "pool"}
_ADAPTS: dict[str, Any] = {"net": "conv4", "n_way": 5, "inner_lr": 0.1, "inner_steps": 5, "test_steps": None}
OWN_SETTINGS: dict[str, dict[str, Any]] = {
    "transfer": {"n_base": 0, "head": "linear", "classifier": "centroid"},
    "siamese": {"objective": "bce"},
    "matching": {"full_context": False, "similarity": "cosine", "scale": None},
    "prototypical": {"distance": "euclidean", "scale": 1.0},
    "relation": {"objective": "mse", "shots": "mean"},
    "maml": {**_ADAPTS, "first_order": False},
    "anil": {**_ADAPTS, "first_order": False},
    "meta_sgd": _ADAPTS,
    "reptile": {**_ADAPTS, "batch": None},
    "meta_lstm": {"net": "conv4", "n_way": 5, "inner_lr": 0.1, "inner_steps": 5, "hidden": 20, "truncate": None},
}

# Smallest and largest value of every setting that is a whole number: a mistyped one must not take all memory, nor a foreign file
LIMITS: dict[str, tuple[int, int]] = {
    "width": (1, 1024), "in_channels": (1, 64), "size": (16, 1024), "n_way": (1, 10_000), "n_base": (0, 1_000_000),
    "inner_steps": (0, 10_000), "test_steps": (0, 10_000), "batch": (1, 1_000_000), "hidden": (1, 1024),
    "truncate": (1, 10_000),
}  # fmt: skip


def _conv4(s: dict[str, Any]) -> nn.Module:
    return conv4(s["width"], s["norm"], s["in_channels"], s["halving"])


def _features(s: dict[str, Any]) -> int:
    return s["width"] * (1 if s["halving"] == "stride" else (s["size"] // 16) ** 2)


def _classifier(s: dict[str, Any], own: dict[str, Any]) -> nn.Module:
    """What methods with a trained head adapt: Conv4 with that head, or the regressor of sine curves."""
    if own["net"] not in ("conv4", "mlp"):
        raise TypeError(f'net must be "conv4", or "mlp" for sine curves; got {own["net"]!r}')
    return mlp() if own["net"] == "mlp" else classifier(_conv4(s), own["n_way"], _features(s))


def _adapts(learner: Callable[..., FewShotLearner], *more: str) -> Callable[[dict, dict], FewShotLearner]:
    """The maker of a method with an inner loop; more: settings that its class takes by the same name."""

    def maker(s: dict[str, Any], own: dict[str, Any]) -> FewShotLearner:
        named = {name: own[name] for name in more}
        return learner(_classifier(s, own), lr=own["inner_lr"], steps=own["inner_steps"], **named)

    return maker


# How each method is made from SETTINGS and its own settings, as its checkpoint has them. A new method is one more line.
MAKERS: dict[str, Callable[[dict[str, Any], dict[str, Any]], FewShotLearner]] = {
    "transfer": lambda s, own: TransferNetwork(_conv4(s), features=_features(s), **own),
    "siamese": lambda s, own: SiameseNetwork(_conv4(s), features=_features(s), **own),
    "matching": lambda s, own: MatchingNetwork(_conv4(s), features=_features(s), **own),
    "prototypical": lambda s, own: PrototypicalNetwork(_conv4(s), **own),
    "relation": lambda s, own: RelationNetwork(s["width"], s["norm"], s["in_channels"], size=s["size"], **own),
    "maml": _adapts(MAML, "first_order", "test_steps"),
    "anil": _adapts(ANIL, "first_order", "test_steps"),
    "meta_sgd": _adapts(MetaSGD, "test_steps"),
    "reptile": _adapts(Reptile, "batch", "test_steps"),
    "meta_lstm": _adapts(MetaLSTM, "hidden", "truncate"),
}


class CheckpointError(RuntimeError):
    """A checkpoint could not be written or read; the message says which file, why, and what to do."""


def has_head(method: str) -> bool:
    """True for methods that train a head of n_way outputs: their weights serve one number of ways only."""
    return "n_way" in OWN_SETTINGS.get(method, {})


def settings_of(method: str, source: ImageSet, way: int = 5) -> dict[str, Any]:
    """The settings that follow from the training tasks: channels of the pictures, their size where it is not 28, base classes.

    Methods with a trained head get its n_way.
    """
    settings: dict[str, Any] = {"in_channels": source.images.shape[2]}
    if (size := source.images.shape[-1]) != SETTINGS["size"]:
        settings["size"] = size
    if "n_base" in OWN_SETTINGS.get(method, {}):  # a head that covers the classes to train on
        settings["n_base"] = len(source.split("train"))
    if has_head(method):
        settings["n_way"] = way
    return settings


def check_method(method: object) -> None:
    """ValueError with what there is where this is no trainable method."""
    if not isinstance(method, str) or method not in MAKERS:
        there_is = sorted(MAKERS)
        raise ValueError(
            f"there is no trainable method {method!r:.60}: choose one of {', '.join(there_is)}.{did_you_mean(method, there_is)}"
        )


def make(method: str, /, **settings: Any) -> FewShotLearner:
    """A fresh learner. method: the name of its file; settings: those of SETTINGS and the method's OWN_SETTINGS.

    Raises ValueError for an unknown method or setting, with what there is, and for a value that cannot be.
    """
    check_method(method)
    own = OWN_SETTINGS.get(method, {})
    if unknown := sorted(set(settings) - set(SETTINGS) - set(own)):
        there_is = [*SETTINGS, *own]
        raise ValueError(
            f"{method} has no setting {', '.join(unknown):.60}: choose from {', '.join(there_is)}."
            f"{did_you_mean(unknown[0], there_is)}"
        )
    for name, value in settings.items():
        _check(name, value, (SETTINGS | own)[name])
    common, own = ({name: settings.get(name, default) for name, default in d.items()} for d in (SETTINGS, own))
    try:
        return MAKERS[method](common, own)
    except (TypeError, RuntimeError) as error:  # a list where a word should be, or more than fits into the memory
        raise ValueError(f"{method} cannot be made with {settings!s:.300}: {error}") from error


def _check(name: str, value: Any, default: Any) -> None:
    """ValueError where a setting is not of its default's kind or is out of bounds; words are left to the classes."""
    if value is None and default is None:
        return
    if isinstance(default, bool) and not isinstance(value, bool):
        raise ValueError(f"{name} must be True or False; got {value!r:.60}.")
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if name in LIMITS:
        low, high = LIMITS[name]
        if not (number and isinstance(value, int) and low <= value <= high):
            raise ValueError(f"{name} must be a whole number from {low} to {high}; got {value!r:.60}.")
    elif isinstance(default, float) and not (number and 0 <= value <= 1e30):  # what float32 knows, and some room
        raise ValueError(f"{name} must be a number from 0 to 1e30; got {value!r:.60}.")


def save_file(path: str | Path, tensors: dict[str, Tensor], about: dict[str, Any]) -> None:
    """Writes tensors and a JSON-able dictionary to one file, atomically: the old file or the whole new one is there.

    Raises CheckpointError where the disk is full or the folder cannot be written to.
    """
    blob = save(
        # clones: tied weights share memory, which the format does not know
        {k: t.detach().cpu().clone(memory_format=torch.contiguous_format) for k, t in tensors.items()},
        {"about": json.dumps(about, sort_keys=True)},
    )
    _write(Path(path), blob)


def save_json(path: str | Path, content: dict[str, Any]) -> None:
    """Writes a dictionary as JSON, atomically; CheckpointError as for `save_file`."""
    _write(Path(path), (json.dumps(content, indent=2) + "\n").encode())


def _write(path: Path, blob: bytes) -> None:
    try:
        replace_file(path, blob)
    except OSError as error:
        kept = "The file that was there before is untouched." if os.path.exists(path) else "Nothing was written."
        raise CheckpointError(
            f"could not write {path} ({len(blob) / 1e6:.1f} MB): {error.strerror or error}. {kept} "
            "Free some disk space or name a folder that you may write to."
        ) from error


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, dict[str, Any]]]:
    """An open file of `save_file` and its dictionary; no tensor is read yet. CheckpointError where it is no such file."""
    if not path.is_file():
        raise CheckpointError(f"there is no checkpoint at {path}.")
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {})["about"])
            if not isinstance(about, dict):
                raise ValueError("its header holds no dictionary")
            yield file, about
    except (SafetensorError, KeyError, ValueError, RecursionError, OSError) as error:
        raise CheckpointError(
            f"{path} is not a whole checkpoint of this course ({error!s:.200}). Delete it to start again, or restore a copy."
        ) from error


def load_file(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the dictionary that `save_file` wrote. Loading never executes code."""
    with _opened(Path(path)) as (file, about):
        # clones: the tensors are windows into the file, which a later save replaces
        return {name: file.get_tensor(name).clone() for name in file.keys()}, about  # noqa: SIM118 - not a dict


def load_weights(learner: nn.Module, tensors: dict[str, Tensor], path: str | Path) -> None:
    """Copies named weights into a learner; CheckpointError when names or shapes differ."""
    try:
        learner.load_state_dict(tensors)
    except RuntimeError as error:
        raise CheckpointError(
            f"the weights in {path} do not fit this learner: {' '.join(str(error).split())}"
        ) from error


def save_learner(path: str | Path, learner: FewShotLearner, about: dict[str, Any]) -> None:
    """A learner's weights with what is needed to make it again: about["method"] and about["settings"]."""
    save_file(path, dict(learner.state_dict()), about)


def load_learner(path: str | Path) -> tuple[FewShotLearner, dict[str, Any]]:
    """A learner in evaluation mode and what its file says about it, from a file of `save_learner`.

    A file may come from anywhere: it is compared with a learner that takes no memory before one is made.
    Raises CheckpointError for a file that is none, does not fit together, or asks for what cannot be.
    """
    path = Path(path)
    with _opened(path) as (file, about):
        shapes = {name: list(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 - not a dict
    method, settings = about.get("method"), about.get("settings")
    if method is None or not isinstance(settings, dict):
        raise CheckpointError(f"{path} does not say which method it holds; it is no file of save_learner.")
    try:
        with torch.device("meta"):
            expected = {name: list(t.shape) for name, t in make(method, **settings).state_dict().items()}
    except ValueError as error:
        raise CheckpointError(f"{path} cannot be used: {error}") from error
    if differ := sorted(n for n in shapes.keys() | expected.keys() if shapes.get(n) != expected.get(n)):
        name = differ[0]
        raise CheckpointError(
            f"the weights in {path} do not fit this learner: {len(differ)} differ, e.g. {name:.80} is {shapes.get(name)} in the "
            f"file and {expected.get(name)} in {method} with its settings."
        )
    learner = make(method, **settings)
    load_weights(learner, load_file(path)[0], path)
    return learner.eval(), about


def shipped() -> list[str]:
    """The names of all shipped weights, e.g. "prototypical-glyphs", "maml-omniglot-5w1s", "matching-omniglot-full_context-5s"."""
    return sorted(path.stem for path in (asset("checksums.json").parent / "checkpoints").glob("*.safetensors"))


def shipped_name(
    method: str, data: str, way: int | None = None, shot: int | None = None, *, variant: str | None = None
) -> str:
    """The name of the shipped weights that serve these tasks: METHOD-DATA[-VARIANT][-SHOTs | -WAYwSHOTs].

    Methods with a trained head have weights for one way and shot. All others serve every way; of their weights those trained
    for this shot are taken where they are shipped, else the general ones.
    Raises ValueError with what is shipped where there are none.
    """
    stem, there_is = "-".join([method, data, *([variant] if variant else [])]), shipped()
    if has_head(method):
        wanted = [f"{stem}-{way}w{shot}s" if way is not None and shot is not None else stem]
    else:
        wanted = [f"{stem}-{shot}s"] * (shot is not None) + [stem]
    for name in wanted:
        if name in there_is:
            return name
    raise ValueError(
        f"no weights are shipped as {wanted[-1]!r}; shipped are: {', '.join(there_is) or 'none'}."
        f"{did_you_mean(wanted[-1], there_is)}"
    )


def card(
    method: str, data: str, way: int | None = None, shot: int | None = None, *, variant: str | None = None
) -> dict[str, Any]:
    """The card of shipped weights: command, seed, settings, result. Arguments as for `pretrained`."""
    name = shipped_name(method, data, way, shot, variant=variant)
    return json.loads(asset(f"checkpoints/{name}.json").read_text(encoding="utf-8"))


def pretrained(
    method: str, data: str, way: int | None = None, shot: int | None = None, *, variant: str | None = None
) -> FewShotLearner:
    """Shipped weights in evaluation mode, e.g. pretrained("prototypical", "glyphs"); works offline.

    method:    its file's name
    data:      what it was trained on: "glyphs", "omniglot" (classes drawn at random, with rotations, as in the papers) or
               "omniglot-alphabets" (tested on whole alphabets never seen)
    way, shot: of the tasks to solve. Methods with a trained head need both, e.g. pretrained("maml", "omniglot", 5, 1); of others,
               weights trained for this shot are taken where they are shipped, else those that serve all
    variant:   e.g. "full_context" of matching
    Raises ValueError with what is shipped where there is no such file, or where the file is damaged.
    """
    return load_learner(verified(f"checkpoints/{shipped_name(method, data, way, shot, variant=variant)}.safetensors"))[
        0
    ]


def layouts_like(tensor: Tensor, target: Tensor) -> Tensor:
    """tensor with the memory layout of target (channels-last stays so): a resumed run then sums in the same order."""
    return torch.empty_like(target, dtype=tensor.dtype).copy_(tensor)
