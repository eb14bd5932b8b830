"""Zero-shot learning: a class is known by its description alone, and a picture by what can be seen of it.

ZeroShot     description and picture are embedded into one space (Snell et al. 2017: prototypes embedded from attributes), or
             meet as in CLIP (Radford et al. 2021)
dap_scores   attributes predicted one by one (Lampert et al. 2014)
eszsl        a bilinear map in closed form (Romera-Paredes, Torr 2015)
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fsl_course.episodes import Episode
from fsl_course.methods.base import FewShotLearner
from fsl_course.methods.prototypical import squared_distances
from fsl_course.nets import embedding_size

HEADS = ("prototypes", "towers")


class ZeroShot(FewShotLearner):
    """Compares embedded pictures with embedded descriptions; the support is ignored, so shots do not matter.

    encoder:      pictures [B, c, H, W] -> [B, features]
    n_attributes: A, numbers in the description of a class
    features:     None finds it by embedding a blank 28x28 picture
    joint:        D, the dimension of the space in which both meet
    hidden:       units of a hidden layer on the side of the descriptions; 0 takes a linear map, as Snell et al. do
    head:         "prototypes": minus squared Euclidean distances to prototypes of unit length, cross-entropy;
                  "towers": cosines times a learned scale, symmetric cross-entropy (`symmetric_loss`)

    Descriptions come as episode.attributes [N, A]; `fsl_course.data.attributes.described` puts them into an image set.
    """

    uses_attributes = True

    def __init__(
        self,
        encoder: nn.Module,
        n_attributes: int = 36,
        features: int | None = None,
        joint: int = 64,
        hidden: int = 0,
        head: str = "prototypes",
    ) -> None:
        super().__init__()
        if head not in HEADS:
            raise ValueError(f"head must be one of {', '.join(HEADS)}; got {head!r}.")
        self.encoder, self.head, self.n_attributes, self.joint, self.hidden = encoder, head, n_attributes, joint, hidden
        self.picture = nn.Linear(embedding_size(encoder) if features is None else features, joint)
        first = [nn.Linear(n_attributes, hidden), nn.ReLU()] if hidden else []
        self.description = nn.Sequential(*first, nn.Linear(hidden or n_attributes, joint))
        self.log_scale = nn.Parameter(torch.tensor(math.log(10.0))) if head == "towers" else None

    def embed(self, x: Tensor) -> Tensor:
        """Embeds pictures [B, c, H, W] -> [B, D]; for towers of unit length."""
        z = self.picture(self.encoder(x))
        return F.normalize(z, dim=-1) if self.head == "towers" else z

    def prototypes(self, attributes: Tensor) -> Tensor:
        """Embeds descriptions [..., N, A] -> [..., N, D], of unit length."""
        return F.normalize(self.description(attributes), dim=-1)

    def score(
        self, support: Tensor, labels: Tensor, query: Tensor, n_way: int, attributes: Tensor | None = None
    ) -> Tensor:
        """Scores queries [..., M, D] by descriptions [..., N, A] of the length of those in training -> logits [..., M, N]."""
        if attributes is None or attributes.shape[-1] != self.n_attributes:
            there = "none" if attributes is None else f"those of {attributes.shape[-1]}"
            raise ValueError(
                f"this learner reads descriptions of {self.n_attributes} numbers, and these classes have {there}: sample from "
                "described(load_glyphs()) or described(load_icons()), and take the weights trained on that set."
            )
        centres = self.prototypes(attributes.to(query.dtype))
        if self.log_scale is None:
            return -squared_distances(query, centres)
        return self.log_scale.exp().clamp(max=100) * query @ centres.mT

    def forward(self, episode: Episode) -> Tensor:
        """Predicts the queries of one task -> logits [N*Q, N]."""
        query = self.embed(episode.query_x)
        return self.score(query[:0], episode.support_y, query, episode.n_way, episode.attributes)

    def loss(self, episode: Episode) -> Tensor:
        """Returns cross-entropy over the classes; for towers the symmetric one."""
        loss = F.cross_entropy if self.log_scale is None else symmetric_loss
        return loss(self(episode), episode.query_y)


def symmetric_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Returns the mean of two cross-entropies: each picture chooses its class, each class its pictures. logits [M, N] -> scalar.

    With one picture a class it is CLIP's loss (Radford et al. 2021). Where a class has several pictures, its target is
    spread evenly over them; a class without a picture asks nothing.
    """
    member = F.one_hot(labels, logits.shape[1]).to(logits.dtype)  # [M, N]
    share = member / member.sum(0).clamp_min(1)
    by_class = -(share * logits.log_softmax(0)).sum() / (member.sum(0) > 0).sum()
    return (F.cross_entropy(logits, labels) + by_class) / 2


def dap_scores(logits: Tensor, attributes: Tensor, prior: Tensor) -> Tensor:
    """Returns log prod_a p(a_k | x) / p(a_k) (Lampert et al. 2014: direct attribute prediction) -> [..., M, N].

    logits [..., M, A]: log-odds that the attribute holds; attributes [..., N, A] of zeros and ones; prior [A]: how often each
    holds among the training classes, strictly between 0 and 1
    """
    holds = F.logsigmoid(logits) - prior.log()
    lacks = F.logsigmoid(-logits) - (-prior).log1p()
    return holds @ attributes.mT + lacks @ (1 - attributes).mT


def eszsl(x: Tensor, targets: Tensor, attributes: Tensor, gamma: float, lam: float) -> Tensor:
    """Returns V = (Xt X + gamma I)^-1 Xt Y S (St S + lam I)^-1 (Romera-Paredes, Torr 2015, with rows as examples).

    x: features [M, D]; targets [M, N], 1 for the picture's class and -1 (or 0) for others; attributes S [N, A] -> V [D, A].
    A picture scores x @ V @ attributes.T, also with attributes of new classes.
    """
    left = x.mT @ x + gamma * torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    right = attributes.mT @ attributes + lam * torch.eye(attributes.shape[1], dtype=x.dtype, device=x.device)
    found = torch.linalg.solve(left, x.mT @ targets @ attributes)
    return torch.linalg.solve(right, found, left=False)


def per_class_accuracy(answers: Tensor, labels: Tensor) -> float:
    """Returns the mean over the classes that occur of the share of each that is right. answers, labels int64 [M]."""
    return sum(float((answers[labels == k] == k).double().mean()) for k in labels.unique()) / len(labels.unique())
