"""Meta-SGD (Li, Zhou, Chen, Li 2017): MAML that also learns a rate, with its sign, for every single parameter."""

import torch
from torch import nn

from fsl_course.episodes import Episode
from fsl_course.episodes._blocks import check_whole
from fsl_course.inner_loop.functional import Params, trainable
from fsl_course.methods.base import FewShotLearner
from fsl_course.methods.maml import adapt_model


class MetaSGD(FewShotLearner):
    """theta' = theta - alpha * grad L_support(theta), element by element; theta and alpha are learned (section 3).

    model: as for MAML
    lr:    initial value of all rates, which may become negative (the paper draws this one number from [0.005, 0.1])
    steps: inner steps (one in the paper), all with the same rates
    """

    def __init__(
        self, model: nn.Module, lr: float, steps: int, *, test_steps: int | None = None, vmap: bool | None = None
    ) -> None:
        super().__init__()
        check_whole(0, steps=steps, test_steps=test_steps or 0)
        self.model, self.steps, self.test_steps, self.vmap = model, steps, test_steps, vmap
        # in the order of the model
        self.rates = nn.ParameterList(torch.full_like(p, lr) for p in trainable(model).values())

    def named_rates(self) -> Params:
        """Returns the learned rates by the name of their parameter, each in its shape."""
        return dict(zip(trainable(self.model), self.rates, strict=True))

    def adapted(self, episode: Episode) -> Params:
        """The model's parameters after the inner loop on this task's support; with a graph where gradients are enabled."""
        steps = self.steps if self.training or self.test_steps is None else self.test_steps
        return adapt_model(self.model, episode, lr=self.named_rates(), steps=steps)
