"""What a learner knows once it has read the support of a task, and how it then scores pictures.

Each picture is scored on its own, unless the learner is transductive: then the pictures of one call are scored together.
"""

from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor, nn

from fsl_course.data.imageset import as_input
from fsl_course.episodes import Episode
from fsl_course.evaluation import embed_all, evaluation_mode
from fsl_course.inner_loop.functional import predict
from fsl_course.methods.base import ComparesEmbeddings, FewShotLearner
from fsl_course.methods.dense import DensePrototypes

_AT_ONCE = 256  # pictures in a forward pass


class Support:
    """The support of any learner: it is read again for every picture, so that no answer depends on other pictures.

    A transductive learner judges all pictures of a call together, as it does the queries of a task.

    images: uint8 [S, c, H, W]; labels: int64 [S] in 0..n_way-1, every slot at least once. `read_support` chooses among this
    class and the two below, which read the support once.
    """

    def __init__(self, learner: FewShotLearner, images: Tensor, labels: Tensor, n_way: int) -> None:
        like = next(learner.parameters(), torch.zeros(()))
        self.learner, self.n_way, self.dtype = learner, n_way, like.dtype
        self.images, self.labels = images.to(like.device), labels.to(like.device)
        with evaluation_mode(learner), torch.no_grad():
            self._read()

    def scores(self, images: Tensor) -> Tensor:
        """Scores pictures uint8 [B, c, H, W] -> [B, N], on the CPU."""
        return self._run(self._scores, images, len(images) if self.learner.transductive else _AT_ONCE)

    def features(self, images: Tensor) -> Tensor:
        """Returns the numbers by which pictures uint8 [B, c, H, W] are compared -> [B, D], on the CPU; here their pixels."""
        return self._run(self._features, images)

    @cached_property
    def own_features(self) -> Tensor:
        """The features of the support pictures themselves [S, D], on the CPU."""
        return self.features(self.images)

    def left_out(self) -> Tensor:
        """Scores every support picture by the others -> [S, N], on the CPU. Each class needs two."""
        return self._run(lambda rows: torch.cat([self._left_out(row) for row in rows]), torch.arange(len(self.labels)))

    def _run(self, function: Callable[[Tensor], Tensor], rows: Tensor, at_once: int = _AT_ONCE) -> Tensor:
        with evaluation_mode(self.learner), torch.no_grad():
            return torch.cat([function(part.to(self.labels.device)).cpu() for part in rows.split(max(at_once, 1))])

    def _task(self, images: Tensor) -> Episode:
        """Returns the support with these queries, whose labels nobody knows."""
        x = [as_input(pictures, self.dtype) for pictures in (self.images, images)]
        unknown, classes = self.labels.new_zeros(len(images)), torch.arange(self.n_way, device=self.labels.device)
        return Episode(x[0], self.labels, x[1], unknown, classes)

    def _read(self) -> None:
        """Learns what it can from the support alone."""

    def _scores(self, images: Tensor) -> Tensor:
        parts = [images] if self.learner.transductive else images.split(1)
        return torch.cat([self.learner(self._task(part)) for part in parts])

    def _features(self, images: Tensor) -> Tensor:
        return as_input(images, self.dtype).flatten(1)

    def _others(self, row: Tensor) -> Tensor:
        return torch.arange(len(self.labels), device=self.labels.device) != row

    def _left_out(self, row: Tensor) -> Tensor:
        others = self._others(row)
        read = type(self)(self.learner, self.images[others], self.labels[others], self.n_way)
        return read._scores(self.images[row][None])


class _Embedded(Support):
    """The support of a learner that compares embeddings: embedded once."""

    def _read(self) -> None:
        check_ways(self.learner, getattr(self.learner, "n_way", self.n_way), self.n_way)
        self.embedded = self._features(self.images)

    @cached_property
    def own_features(self) -> Tensor:
        return self.embedded.cpu()

    def _features(self, images: Tensor) -> Tensor:
        return embed_all(self.learner, images, self.dtype)

    def _scores(self, images: Tensor) -> Tensor:
        return self.learner.score(self.embedded, self.labels, self._features(images), self.n_way)

    def _left_out(self, row: Tensor) -> Tensor:
        others = self._others(row)
        return self.learner.score(self.embedded[others], self.labels[others], self.embedded[row][None], self.n_way)


class _Adapted(Support):
    """The support of a learner that adapts its model: adapted once. Features are the input of the last linear layer."""

    def _read(self) -> None:
        check_ways(self.learner, self.learner.model(self._task(self.images[:1]).query_x).shape[-1], self.n_way)
        self.params = self.learner.adapted(self._task(self.images[:0]))

    def _scores(self, images: Tensor) -> Tensor:
        return predict(self.learner.model, self.params, self._task(images))

    def _features(self, images: Tensor) -> Tensor:
        linear, seen = [m for m in self.learner.model.modules() if isinstance(m, nn.Linear)], []
        if not linear:
            return self._scores(images)
        hook = linear[-1].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
        try:
            self._scores(images)
        finally:
            hook.remove()
        return seen[-1]  # batch norm may have seen the support before


def check_ways(learner: FewShotLearner, outputs: int, n_way: int) -> None:
    """Raises ValueError unless a learner with a head of this many outputs fits the number of classes."""
    if outputs != n_way:
        raise ValueError(
            f"this {type(learner).__name__} has a head for {outputs} classes, and there are {n_way}: give it "
            f"{outputs}, or take a method that serves any number of them, such as prototypical."
        )


def read_support(learner: FewShotLearner, images: Tensor, labels: Tensor, n_way: int) -> Support:
    """Lets a learner read a support. Raises ValueError if the pictures or the number of classes do not fit it."""
    if learner.uses_attributes:
        raise ValueError(
            f"{type(learner).__name__} knows classes by their descriptions, and pictures alone carry none: take a method that "
            "learns from pictures, such as prototypical, or call the learner with episodes of described(load_glyphs())."
        )
    if isinstance(learner, DensePrototypes):
        raise ValueError(
            "DensePrototypes marks the pixels of one class in scenes and names no picture: call it with scenes."
        )
    adapts = callable(getattr(learner, "adapted", None))
    kind = _Embedded if isinstance(learner, ComparesEmbeddings) else _Adapted if adapts else Support
    try:
        return kind(learner, images, labels, n_way)
    except RuntimeError as error:  # PyTorch's words for shapes that do not fit
        form = f"{images.shape[-1]} x {images.shape[-2]} pixels and {images.shape[1]} channel(s)"
        raise ValueError(f"pictures of {form} do not fit this learner: {error}") from error
