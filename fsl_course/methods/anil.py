"""ANIL, almost no inner loop (Raghu, Raghu, Bengio, Vinyals 2020): only the head adapts, the body learns in the outer loop."""

from contextlib import nullcontext
from dataclasses import replace

from torch import Tensor, nn
from torch.func import vmap

from fsl_course.episodes import Episode
from fsl_course.episodes._blocks import check_whole
from fsl_course.inner_loop.functional import Params, call, predict, trainable
from fsl_course.inner_loop.support_statistics import batch_statistics, norms_for_vmap, query_statistics
from fsl_course.methods.base import FewShotLearner
from fsl_course.methods.maml import adapt_model


class ANIL(FewShotLearner):
    """MAML whose inner loop adapts only the head (section 4), so in training every picture passes the body once.

    model:     as for MAML
    head:      name of the submodule that adapts and computes the model's output; None: its last linear layer; "": the whole
               model, which is MAML
    lr, steps, first_order, test_steps, vmap: as for MAML
    """

    def __init__(
        self,
        model: nn.Module,
        lr: float,
        steps: int,
        first_order: bool = False,
        *,
        head: str | None = None,
        test_steps: int | None = None,
        vmap: bool | None = None,
    ) -> None:
        super().__init__()
        check_whole(0, steps=steps, test_steps=test_steps or 0)
        linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
        if head is None and not linear:
            raise ValueError(
                "there is no linear layer to adapt: name the head, e.g. ANIL(model, lr, steps, head='out')."
            )
        self.head = linear[-1] if head is None else head
        model.get_submodule(self.head)  # raises now, not in the first episode, if the name is unknown
        self.model, self.lr, self.steps, self.first_order = model, lr, steps, first_order
        self.test_steps, self.vmap = test_steps, vmap

    def features(self, x: Tensor) -> Tensor:
        """Returns the head's input for x [B, ...]: features [B, D], or x itself if the head is the whole model."""
        head, seen = self.model.get_submodule(self.head), []
        hook = head.register_forward_hook(lambda module, args, output: seen.append((args[0], output)))
        try:
            output = call(self.model, {}, x)
        finally:
            hook.remove()
        if len(seen) != 1 or seen[0][1] is not output:
            raise ValueError(f"the head {self.head!r} must be the last thing that the model does, once.")
        return seen[0][0]

    def adapted(self, episode: Episode) -> Params:
        """Returns the model's parameters after the inner loop on one task's support: the body's own, and the adapted head's."""
        with batch_statistics(self.model):
            task = replace(episode, support_x=self.features(episode.support_x))
        head = self._adapted_head(task)
        return trainable(self.model) | {f"{self.head}.{k}" if self.head else k: p for k, p in head.items()}

    def _adapted_head(self, task: Episode) -> Params:
        """Adapts the head on features in place of pictures. Returns its parameters."""
        steps = self.steps if self.training or self.test_steps is None else self.test_steps
        head = self.model.get_submodule(self.head)
        return adapt_model(head, task, lr=self.lr, steps=steps, first_order=self.first_order)

    def forward(self, episode: Episode) -> Tensor:
        """One task -> logits [N*Q, N], regression: predictions [Q, d_out]. T stacked tasks: a leading axis [T]."""
        features = vmap(self.features) if episode.stacked else self.features  # each task by itself
        with norms_for_vmap(self.model) if episode.stacked else nullcontext():
            with batch_statistics(self.model):
                support = features(episode.support_x)
            with query_statistics(self.model, lambda: features(episode.support_x)):
                query = features(episode.query_x)
        task = replace(episode, support_x=support, query_x=query)
        return predict(self.model.get_submodule(self.head), self._adapted_head(task), task)
