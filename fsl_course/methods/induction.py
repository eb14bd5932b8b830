"""Induction networks (Geng et al. 2019): the vectors of a class are routed into one by agreement, and a network compares."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fsl_course.episodes import Episode
from fsl_course.methods.base import FewShotLearner, check_labels
from fsl_course.nets import embedding_size


def squash(x: Tensor) -> Tensor:
    """Shortens vectors [..., D] to |x|^2 / (1 + |x|^2), which is below 1, and keeps their direction (equation 4).

    Written as x |x| / (1 + |x|^2): nothing is divided by a length, so the zero vector and its gradient stay finite.
    """
    square = x.square().sum(-1, keepdim=True)
    return x * square.clamp_min(torch.finfo(x.dtype).tiny).sqrt() / (1 + square)


def induce(votes: Tensor, labels: Tensor, n_way: int, iterations: int = 3) -> Tensor:
    """Routes the votes of the shots into one vector for each class (algorithm 1, equations 6 to 9). Shots may differ.

    votes: the squashed support [..., S, D]; labels: int64 [..., S], every slot at least once -> [..., n_way, D]

    Each iteration: shares of the shots of a class by a softmax over them, their weighted sum, squashed; then every shot's logit
    grows by its product with the class. With one shot the share is 1. No iteration would leave no class vector.
    """
    check_labels(labels, n_way)
    if iterations < 1:
        raise ValueError(f"routing needs at least one iteration; got {iterations}.")
    member = F.one_hot(labels, n_way).mT.bool()  # [..., N, S]
    logits = torch.zeros(member.shape, dtype=votes.dtype, device=votes.device)
    for _ in range(iterations):
        shares = logits.masked_fill(~member, -torch.inf).softmax(-1)
        classes = squash(shares @ votes)  # [..., N, D]
        logits = logits + classes @ votes.mT
    return classes


class InductionNetwork(FewShotLearner):
    """Relation logits between routed class vectors and queries (section 3.3). A sigmoid makes them relation scores.

    encoder:    inputs [B, ...] -> [B, features]
    features:   None finds it by embedding a blank input
    slices:     h, bilinear forms of the neural tensor layer (100 in the paper)
    iterations: of the routing
    objective:  "mse" of the scores against 1 and 0 (equation 12, the paper's), or "cross_entropy" of the logits
    """

    def __init__(
        self,
        encoder: nn.Module,
        features: int | None = None,
        slices: int = 8,
        iterations: int = 3,
        objective: str = "mse",
    ) -> None:
        super().__init__()
        if objective not in ("mse", "cross_entropy"):
            raise ValueError(f'objective must be "mse" or "cross_entropy"; got {objective!r}.')
        size = embedding_size(encoder) if features is None else features
        self.encoder, self.iterations, self.objective, self.slices = encoder, iterations, objective, slices
        self.transform = nn.Linear(size, size)  # the one map that all classes share (equation 5)
        self.forms = nn.Parameter(torch.eye(size).repeat(slices, 1, 1) + 0.1 * torch.randn(slices, size, size))
        self.relation = nn.Linear(slices, 1)
        nn.init.eye_(self.transform.weight)
        nn.init.ones_(self.relation.weight)

    def score(self, support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> Tensor:
        """support [..., S, D], labels [..., S], query [..., M, D] -> relation logits [..., M, n_way] (equations 10 and 11)."""
        classes = induce(squash(self.transform(support)), labels, n_way, self.iterations)
        left = torch.einsum("...nd,hde->...hne", classes, self.forms)  # [..., h, N, D]
        pairs = (query.unsqueeze(-3) @ left.mT).movedim(-3, -1)  # [..., M, N, h]
        return self.relation(pairs.relu()).squeeze(-1)

    def loss(self, episode: Episode) -> Tensor:
        """Returns the squared error of the relation scores, mean over pairs (the paper sums), or cross-entropy; a scalar."""
        logits = self(episode)
        if self.objective == "cross_entropy":
            return F.cross_entropy(logits, episode.query_y)
        return F.mse_loss(logits.sigmoid(), F.one_hot(episode.query_y, episode.n_way).to(logits.dtype))
