"""Weights on disk: files of a training run, and the trained weights that ship with the course. Never a pickle.

A file is safetensors: named tensors and, in its header, one JSON text. It is written whole or not at all.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
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
from fsl_course.nets import classifier, conv4, mlp

# What every learner is made with where nothing else is said, and what one method takes besides. inner_lr, inner_steps and
# test_steps are lr, steps and test_steps of the class: on the command line the plain words are those of the outer loop.
SETTINGS: dict[str, Any] = {"width": 64, "norm": "batch", "in_channels": 1, "size": 28}
_ADAPTS: dict[str, Any] = {"net": "conv4", "n_way": 5, "inner_lr": 0.1, "inner_steps": 5, "test_steps": None}
OWN_SETTINGS: dict[str, dict[str, Any]] = {
    "transfer": {"n_base": 0, "head": "linear", "classifier": "centroid"},
    "siamese": {"objective": "bce"},
    "matching": {"full_context": False, "similarity": "cosine", "scale": None},
    "relation": {"objective": "mse", "shots": "mean"},
    "maml": {**_ADAPTS, "first_order": False},
    "anil": {**_ADAPTS, "first_order": False},
    "meta_sgd": _ADAPTS,
    "reptile": {**_ADAPTS, "batch": None},
    "meta_lstm": {"net": "conv4", "n_way": 5, "inner_lr": 0.1, "inner_steps": 5, "hidden": 20, "truncate": None},
}


def _conv4(s: dict[str, Any]) -> nn.Module:
    return conv4(s["width"], s["norm"], s["in_channels"])


def _features(s: dict[str, Any]) -> int:
    return s["width"] * (s["size"] // 16) ** 2


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
    "prototypical": lambda s, own: PrototypicalNetwork(_conv4(s)),
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


def make(method: str, **settings: Any) -> FewShotLearner:
    """A fresh learner. method: the name of its file; settings: those of SETTINGS and the method's OWN_SETTINGS.

    Raises ValueError for an unknown method or setting, with what there is, and for a value that cannot be.
    """
    if method not in MAKERS:
        raise ValueError(f"there is no trainable method {method!r}: choose one of {', '.join(sorted(MAKERS))}.")
    own = OWN_SETTINGS.get(method, {})
    if unknown := set(settings) - set(SETTINGS) - set(own):
        raise ValueError(
            f"{method} has no setting {', '.join(sorted(unknown))}: choose from {', '.join([*SETTINGS, *own])}."
        )
    common, own = ({name: settings.get(name, default) for name, default in d.items()} for d in (SETTINGS, own))
    try:
        return MAKERS[method](common, own)
    except (TypeError, RuntimeError) as error:  # a word where a number should be, or a number below zero
        raise ValueError(f"{method} cannot be made with {settings}: {error}") from error


def save_file(path: str | Path, tensors: dict[str, Tensor], about: dict[str, Any]) -> None:
    """Writes tensors and a JSON-able dictionary to one file, atomically: the old file or the whole new one is there.

    Raises CheckpointError where the disk is full or the folder cannot be written to.
    """
    path = Path(path)
    blob = save(
        # clones: tied weights share memory, which the format does not know
        {k: t.detach().cpu().clone(memory_format=torch.contiguous_format) for k, t in tensors.items()},
        {"about": json.dumps(about, sort_keys=True)},
    )
    try:
        replace_file(path, blob)
    except OSError as error:
        kept = "The file that was there before is untouched." if os.path.exists(path) else "Nothing was written."
        raise CheckpointError(
            f"could not write {path} ({len(blob) / 1e6:.1f} MB): {error.strerror or error}. {kept} "
            "Free some disk space or name a folder that you may write to."
        ) from error


def load_file(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the dictionary that `save_file` wrote. Loading never executes code."""
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"there is no checkpoint at {path}.")
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {})["about"])
            # clones: the tensors are windows into the file, which a later save replaces
            return {name: file.get_tensor(name).clone() for name in file.keys()}, about  # noqa: SIM118 - not a dict
    except (SafetensorError, KeyError, ValueError, OSError) as error:
        raise CheckpointError(
            f"{path} is not a whole checkpoint of this course ({error}). Delete it to start again, or restore a copy."
        ) from error


def load_weights(learner: nn.Module, tensors: dict[str, Tensor], path: str | Path) -> None:
    """Copies named weights into a learner; CheckpointError when names or shapes differ."""
    try:
        learner.load_state_dict(tensors)
    except RuntimeError as error:
        raise CheckpointError(f"the weights in {path} do not fit this learner: {error}") from error


def save_learner(path: str | Path, learner: FewShotLearner, about: dict[str, Any]) -> None:
    """A learner's weights with what is needed to make it again: about["method"] and about["settings"]."""
    save_file(path, dict(learner.state_dict()), about)


def load_learner(path: str | Path) -> tuple[FewShotLearner, dict[str, Any]]:
    """A learner in evaluation mode and what its file says about it, from a file of `save_learner`."""
    tensors, about = load_file(path)
    if "method" not in about or "settings" not in about:
        raise CheckpointError(f"{path} does not say which method it holds; it is no file of save_learner.")
    learner = make(about["method"], **about["settings"])
    load_weights(learner, tensors, path)
    return learner.eval(), about


def card(method: str, data: str, way: int | None = None, shot: int | None = None) -> dict[str, Any]:
    """The card of shipped weights: command, seed, settings, result."""
    return json.loads(
        asset(_shipped(method, data, way, shot).replace(".safetensors", ".json")).read_text(encoding="utf-8")
    )


def _shipped(method: str, data: str, way: int | None, shot: int | None) -> str:
    head = f"-{way}w{shot}s" if way is not None and shot is not None else ""
    return f"checkpoints/{method}-{data}{head}.safetensors"


def pretrained(method: str, data: str, way: int | None = None, shot: int | None = None) -> FewShotLearner:
    """Shipped weights in evaluation mode, e.g. pretrained("prototypical", "glyphs"); works offline.

    method: its file's name; data: what it was trained on; way, shot: for methods with a fixed head.
    Raises ValueError with what is shipped where there is no such file, or where the file is damaged.
    """
    name = _shipped(method, data, way, shot)
    try:
        asset(name)
    except FileNotFoundError:
        folder = asset("checksums.json").parent / "checkpoints"
        names = ", ".join(sorted(p.stem for p in folder.glob("*.safetensors"))) or "none"
        raise ValueError(f"no weights are shipped as {Path(name).stem!r}; shipped are: {names}.") from None
    return load_learner(verified(name))[0]


def layouts_like(tensor: Tensor, target: Tensor) -> Tensor:
    """tensor with the memory layout of target (channels-last stays so): a resumed run then sums in the same order."""
    return torch.empty_like(target, dtype=tensor.dtype).copy_(tensor)
