"""The LSTM meta-learner (Ravi, Larochelle 2017): an LSTM whose cell state is the parameter vector of the model being trained."""

import math

import torch
from torch import Tensor, nn
from torch.func import grad_and_value

from fsl_course.episodes import Episode
from fsl_course.episodes._blocks import check_whole
from fsl_course.inner_loop.functional import Params, support_loss, trainable
from fsl_course.methods.base import FewShotLearner


def preprocess(x: Tensor, p: float = 10.0) -> Tensor:
    """Turns numbers of any size into two of moderate size each (Andrychowicz et al. 2016, appendix A): [...] -> [..., 2].

    (log|x| / p, sign x) for |x| >= exp(-p), and (-1, exp(p) x) for smaller ones.
    """
    large = x.abs() >= math.exp(-p)
    logs = torch.where(large, x.abs().clamp_min(math.exp(-p)).log() / p, -torch.ones_like(x))
    return torch.stack([logs, torch.where(large, x.sign(), math.exp(p) * x)], dim=-1)


class MetaLSTM(FewShotLearner):
    """theta_j = f_j * theta_{j-1} - i_j * grad_j (equation 2), with gates f and i that one shared rule computes per parameter.

    model:    as for MAML; its parameters are the initial cell state theta_0, which is learned
    steps:    T (J in the lessons), inner steps, each on the whole support
    hidden:   width of the first LSTM, which reads the preprocessed gradient and loss (sections 3.1 and 3.2)
    lr:       initial input gate; the forget gate starts near 1, so an untrained learner does roughly SGD with this rate and a
              little weight decay
    truncate: number of last steps that gradients pass back through; theta_0 learns only if truncate >= steps. None: all steps

    The gradients and losses that the gates read are taken as constants (gradient independence, section 3).
    """

    def __init__(
        self, model: nn.Module, steps: int, *, hidden: int = 20, lr: float = 0.01, truncate: int | None = None
    ) -> None:
        super().__init__()
        check_whole(0, steps=steps)
        if not 0 < lr < 1:
            raise ValueError(f"lr must lie between 0 and 1, for it is where a gate starts; got {lr}.")
        if truncate is not None and truncate < 1:
            raise ValueError(f"truncate must be at least 1 step, or None for all; got {truncate}.")
        self.model, self.steps, self.truncate = model, steps, truncate
        self.reader = nn.LSTMCell(4, hidden)
        self.input_gate, self.forget_gate = nn.Linear(hidden + 2, 1), nn.Linear(hidden + 2, 1)
        with torch.no_grad():
            for gate, start in ((self.input_gate, math.log(lr / (1 - lr))), (self.forget_gate, 6.0)):
                gate.weight.mul_(0.01)
                gate.bias.fill_(start)

    def _split(self, flat: Tensor) -> Params:
        """Cuts one vector [P] into parameters by name, each in its shape."""
        like = trainable(self.model)
        pieces = flat.split([p.numel() for p in like.values()])
        return {name: piece.view(p.shape) for (name, p), piece in zip(like.items(), pieces, strict=True)}

    def adapted(self, episode: Episode) -> Params:
        """The model's parameters after T steps of the learned rule on this task's support."""
        theta = torch.cat([p.flatten() for p in trainable(self.model).values()])
        with torch.no_grad():  # gradients are constants here, so nobody asks for second derivatives
            loss_fn = grad_and_value(support_loss(self.model, episode))
        state = None
        i = f = torch.zeros_like(theta)
        for step in range(self.steps):
            if self.truncate is not None and 0 < step == self.steps - self.truncate:  # at 0 nothing lies before
                theta, i, f = theta.detach(), i.detach(), f.detach()
                state = None if state is None else tuple(s.detach() for s in state)
            with torch.no_grad():
                gradients, loss = loss_fn(self._split(theta))
            gradient = torch.cat([g.flatten() for g in gradients.values()])
            inputs = torch.cat([preprocess(gradient), preprocess(loss).expand(len(theta), 2)], dim=1)  # [P, 4]
            state = self.reader(inputs, state)
            i = self.input_gate(torch.cat([state[0], theta[:, None], i[:, None]], dim=1)).squeeze(1).sigmoid()
            f = self.forget_gate(torch.cat([state[0], theta[:, None], f[:, None]], dim=1)).squeeze(1).sigmoid()
            theta = f * theta - i * gradient
        return self._split(theta)
