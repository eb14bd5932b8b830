"""Weights on disk: the files of a training run, and the trained weights that ship with the course. None is a pickle.

A file is in the format safetensors: named tensors and, in its header, one JSON text and a checksum of everything. It is written
whole or not at all.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from fsl_course._system.files import replace_file
from fsl_course._system.nearest import did_you_mean
from fsl_course.data.assets import asset, left_out, verified
from fsl_course.methods.base import FewShotLearner, not_finite
from fsl_course.weights.learners import ACT_IN_WORLDS, MAKERS, check_method, has_head, make


class CheckpointError(RuntimeError):
    """A checkpoint could not be written or read; the message says which file, why, and what to do."""


def save_file(path: str | Path, tensors: dict[str, Tensor], about: dict[str, Any]) -> None:
    """Writes tensors and a JSON-able dictionary to one file, atomically. Raises CheckpointError if it cannot be written."""
    # clones, because tied weights share memory, which the format does not allow
    own = {k: t.detach().cpu().clone(memory_format=torch.contiguous_format) for k, t in tensors.items()}
    plain = json.loads(json.dumps(about))  # as it will be read
    # one text, because the format writes several in a random order, and equal content should be equal bytes
    words = json.dumps(plain | {"sha256": _digest(own, plain)}, sort_keys=True)
    _write(Path(path), save(own, {"about": words}))


def _digest(tensors: dict[str, Tensor], about: dict[str, Any]) -> str:
    """Returns the SHA-256 of contiguous tensors, with their names, types and shapes, and of the dictionary beside them."""
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def save_json(path: str | Path, content: dict[str, Any]) -> None:
    """Writes a dictionary as JSON, atomically. Raises CheckpointError as `save_file` does."""
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
def _opened(path: Path) -> Iterator[tuple[Any, dict[str, Any], Any]]:
    """Opens a file of `save_file`, and yields it with dictionary and checksum; reads no tensor. Raises CheckpointError."""
    try:
        if not path.is_file():
            raise CheckpointError(f"there is no checkpoint at {path}.")
        with open(path, "rb"):  # says why a file that may be whole cannot be read
            pass
        with safe_open(path, framework="pt") as file:
            if "about" not in (found := file.metadata() or {}):
                raise ValueError("it does not say what it holds, as every file of this course does")
            about = json.loads(found["about"])
            if not isinstance(about, dict):
                raise ValueError("its header holds no dictionary")
            checksum = about.pop("sha256", None)
            yield file, about, checksum
    except OSError as error:
        raise CheckpointError(
            f"could not read {path}: {error.strerror or error}. It may be whole: leave it, and see to it that you may read it."
        ) from error
    except (SafetensorError, KeyError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path} is not a whole checkpoint of this course ({error!s:.200}). Delete it to start again, or restore a copy."
        ) from error


def load_file(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Returns the tensors and the dictionary that `save_file` wrote. Loading never executes code.

    Raises CheckpointError where a single bit has changed since. Files of earlier versions have no checksum to compare with.
    """
    while True:
        before = _identity(path)
        with _opened(Path(path)) as (file, about, checksum):
            # clones, because the tensors are views of the file, which a later save replaces
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 - not a dict
            if checksum in (None, _digest(tensors, about)):
                return tensors, about
        # safetensors opens a file twice, and a run that saves in between gives it the header of one and the numbers of another
        if _identity(path) == before:
            raise CheckpointError(f"{path} is damaged: it has changed since it was written. Restore a copy.")


def _identity(path: str | Path) -> tuple[int, int, int] | None:
    """Returns what differs between a file and the one that replaces it, or None if there is none that can be seen."""
    found = os.stat(path) if os.path.exists(path) else None
    return found and (found.st_ino, found.st_mtime_ns, found.st_size)


def load_weights(learner: nn.Module, tensors: dict[str, Tensor], path: str | Path) -> None:
    """Copies named weights into a learner. Raises CheckpointError if names, shapes or types differ."""
    for name, own in learner.state_dict().items():
        # PyTorch would convert it, and read nonsense as numbers
        if name in tensors and tensors[name].dtype != own.dtype:
            raise CheckpointError(f"{name} in {path} is {tensors[name].dtype}, and {own.dtype} in this learner.")
    try:
        learner.load_state_dict(tensors)
    except RuntimeError as error:
        words = " ".join(str(error).split())
        raise CheckpointError(f"the weights in {path} do not fit this learner: {words}") from error


def save_learner(path: str | Path, learner: FewShotLearner, about: dict[str, Any]) -> None:
    """Writes a learner's weights with what is needed to make it again: about["method"] and about["settings"]."""
    save_file(path, dict(learner.state_dict()), about)


def load_learner(path: str | Path) -> tuple[FewShotLearner, dict[str, Any]]:
    """Returns a learner in evaluation mode and the dictionary that `save_learner` wrote with it.

    A file may come from anywhere, so its shapes are compared with those of a learner without memory before a real one is made.
    Raises CheckpointError for a file of another kind, with weights that do not fit its settings, or with impossible settings.
    """
    path = Path(path)
    with _opened(path) as (file, about, _):
        # a file of FewShotClassifier holds a support beside the weights, and its names have a slash
        own = [name for name in file.keys() if "/" not in name]  # noqa: SIM118 - not a dict
        shapes = {name: list(file.get_slice(name).get_shape()) for name in own}
    method, settings = about.get("method"), about.get("settings")
    if method is None or not isinstance(settings, dict):
        raise CheckpointError(f"{path} does not say which method it holds; it is no file of save_learner.")
    try:
        with torch.device("meta"):
            expected = {name: list(t.shape) for name, t in make(method, **settings).state_dict().items()}
    except ValueError as error:
        raise CheckpointError(f"{path} cannot be used: {error}") from error
    if differ := sorted(n for n in shapes.keys() | expected.keys() if shapes.get(n) != expected.get(n)):
        name, count = differ[0], len(differ)
        words = f"{name:.80} is {shapes.get(name)} in the file and {expected.get(name)} in {method}"
        raise CheckpointError(f"the weights in {path} do not fit this learner: {count} differ, e.g. {words}.")
    learner = make(method, **settings)
    load_weights(learner, {name: tensor for name, tensor in load_file(path)[0].items() if name in expected}, path)
    if damaged := not_finite(learner.state_dict()):
        words = f"{damaged} holds numbers that are not finite. It is damaged, or its training diverged"
        raise CheckpointError(f"{path} cannot be used: {words}.")
    return learner.eval(), about


def shipped() -> list[str]:
    """Returns the names of all shipped learners' weights, e.g. "maml-omniglot-5w1s" or "matching-omniglot-full_context-5s"."""
    names = sorted(path.stem for path in (asset("checksums.json").parent / "checkpoints").glob("*.safetensors"))
    return [name for name in names if name.partition("-")[0] in MAKERS]  # not the nets that draw, of lesson 16


def shipped_name(
    method: str, data: str, way: int | None = None, shot: int | None = None, *, variant: str | None = None
) -> str:
    """Returns the name of the shipped weights for these tasks: METHOD-DATA[-VARIANT][-SHOTs | -WAYwSHOTs | -WAYw].

    Weights of a method with a trained head serve one way, other weights every way. If weights for this shot are shipped, takes
    them, otherwise the general ones. Raises ValueError, with a list of what is shipped, if there are none.
    """
    if not (isinstance(method, str) and isinstance(data, str)):
        got = f"{method!r:.60} and {data!r:.60}"
        raise TypeError(f"method and data are names, such as prototypical and glyphs; got {got}.")
    if method in ACT_IN_WORLDS:
        check_method(method)  # says what they are
    stem, there_is = "-".join([method, data, *([variant] if variant else [])]), shipped()
    head, known = has_head(method), None not in (way, shot)
    usual = f"{stem}-{way}w{shot}s" if head and known else stem
    wanted = [usual, *[f"{stem}-{way}w"] * known] if head else [f"{stem}-{shot}s", usual]
    for name in wanted:
        if name in there_is:
            return name
    if any(left_out(f"checkpoints/{name}.safetensors") for name in wanted):
        raise ValueError(
            f"the weights {usual!r} are not in the installed package: clone the repository, which holds them."
        )
    names, near = ", ".join(there_is) or "none", did_you_mean(usual, there_is)
    raise ValueError(f"no weights are shipped as {usual!r}; shipped are: {names}.{near}")


def card(method: str, data: str, *task: int | None, variant: str | None = None) -> dict[str, Any]:
    """Returns the card of shipped weights: command, seed, settings, result. Takes the arguments of `pretrained`."""
    name = shipped_name(method, data, *task, variant=variant)
    return json.loads(asset(f"checkpoints/{name}.json").read_text(encoding="utf-8"))


def pretrained(
    method: str, data: str, way: int | None = None, shot: int | None = None, *, variant: str | None = None
) -> FewShotLearner:
    """Returns a learner with shipped weights in evaluation mode, e.g. pretrained("prototypical", "glyphs"). Works offline.

    data:      what it was trained on: "glyphs", "omniglot" (classes drawn at random, turned ones are classes, too) or
               "omniglot-alphabets" (tested on whole alphabets never seen)
    way, shot: of the tasks to solve. Methods with a trained head need both, e.g. pretrained("maml", "omniglot", 5, 1). For other
               methods, weights trained for this shot are used if they are shipped, otherwise those that serve all
    variant:   e.g. "full_context" of matching
    Raises ValueError if there is no such file (the message lists those that are shipped), or if the file is damaged.
    """
    name = shipped_name(method, data, way, shot, variant=variant)
    return load_learner(verified(f"checkpoints/{name}.safetensors"))[0]


def layouts_like(tensor: Tensor, target: Tensor) -> Tensor:
    """Returns tensor in the memory layout of target, e.g. channels-last, so that a resumed run sums in the same order."""
    return torch.empty_like(target, dtype=tensor.dtype).copy_(tensor)
