"""A hypernetwork that reads the support of a task and writes its linear classifier (Ha et al. 2017; Requeima et al. 2019)."""

import torch
from torch import Tensor, nn

from fsl_course.methods.base import FewShotLearner, class_means
from fsl_course.nets import embedding_size


class Hypernetwork(FewShotLearner):
    """A set encoder per class writes weights and bias of a linear head, as corrections of a prototypical network.

    Class k gets w_k = 2 c_k + u_k and b_k = -|c_k|^2 + v_k, where c_k is its prototype and (u_k, v_k) is what the networks make
    of the support. Their last layer starts at zero, so that an untrained hypernetwork is a prototypical network.

    encoder:  pictures [B, c, H, W] -> embeddings [B, D]
    hidden:   width of the networks
    film:     True scales and shifts the encoder's last channels by what the whole task says (FiLM), before the head is
              written. CNAPs (Requeima et al. 2019) does so in every block of the encoder
    features: D; None finds it by embedding a blank 28x28 picture
    """

    def __init__(self, encoder: nn.Module, hidden: int = 64, film: bool = False, features: int | None = None) -> None:
        super().__init__()
        size = embedding_size(encoder) if features is None else features
        self.encoder, self.hidden, self.film = encoder, hidden, film
        self.element = nn.Sequential(nn.Linear(size, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU())
        self.writer = nn.Sequential(nn.Linear(2 * hidden, hidden), nn.ReLU(), nn.Linear(hidden, size + 1))
        self.modulator = nn.Linear(hidden, 2 * size) if film else None
        for last in (self.writer[-1], self.modulator):
            if last is not None:
                nn.init.zeros_(last.weight)
                nn.init.zeros_(last.bias)

    def codes(self, support: Tensor, labels: Tensor, n_way: int) -> tuple[Tensor, Tensor]:
        """Sums up classes and task without an order: class codes [..., n_way, hidden], their mean [..., 1, hidden].

        support: [..., S, D]; labels: int64 [..., S] in 0..n_way-1, every slot at least once
        """
        classes = class_means(self.element(support), labels, n_way)
        return classes, classes.mean(-2, keepdim=True)

    def modulate(self, task: Tensor, *embeddings: Tensor) -> tuple[Tensor, ...]:
        """Scales and shifts embeddings [..., B, D] by the task code [..., 1, hidden]."""
        gamma, beta = self.modulator(task).chunk(2, dim=-1)
        return tuple((1 + gamma) * z + beta for z in embeddings)

    def head(self, support: Tensor, labels: Tensor, n_way: int) -> tuple[Tensor, Tensor]:
        """Writes the head of a task -> weight [..., n_way, D], bias [..., n_way].

        support: [..., S, D]; labels: int64 [..., S] in 0..n_way-1, every slot at least once
        """
        classes, task = self.codes(support, labels, n_way)
        written = self.writer(torch.cat([classes, task.expand_as(classes)], dim=-1))
        centres = class_means(support, labels, n_way)
        return 2 * centres + written[..., :-1], written[..., -1] - centres.square().sum(-1)

    def score(self, support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> Tensor:
        """support [..., S, D], labels [..., S], query [..., M, D] -> logits [..., M, n_way]; leading axes are tasks."""
        if self.film:
            support, query = self.modulate(self.codes(support, labels, n_way)[1], support, query)
        weight, bias = self.head(support, labels, n_way)
        return query @ weight.mT + bias.unsqueeze(-2)
