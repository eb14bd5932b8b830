"""Siamese networks: one encoder embeds two pictures, and a score says whether they show the same class.

Koch, Zemel, Salakhutdinov 2015; contrastive loss by Hadsell, Chopra, LeCun 2006; triplets by Schroff et al. 2015.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fsl_course.episodes import Episode
from fsl_course.methods.base import FewShotLearner, class_means
from fsl_course.nets import embedding_size

OBJECTIVES = ("bce", "contrastive", "triplet")


def sample_pairs(labels: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Draws as many pairs of one class as of two, with replacement: at random only about one in N would be of one class.

    labels: int64 [B] -> first, second: int64 [count], two different rows each; same: bool [count], the first count // 2 are True
    """
    row = torch.arange(len(labels), device=labels.device)
    equal = labels[:, None] == labels
    drawn = []
    for pool, size in ((equal & (row[:, None] != row), count // 2), (~equal, count - count // 2)):
        pairs = pool.nonzero()
        if size and not len(pairs):
            got = sorted(labels.tolist())
            raise ValueError(f"pairs need two classes and a class with two pictures; got labels {got}.")
        picked = torch.randint(max(len(pairs), 1), (size,), generator=generator).to(labels.device)
        drawn.append(pairs[picked])
    first, second = torch.cat(drawn).unbind(1)
    return first, second, labels[first] == labels[second]


def weighted_l1(a: Tensor, b: Tensor, weight: Tensor) -> Tensor:
    """Returns sum_j weight_j |a_j - b_j| for all pairs of rows (Koch et al. 2015, section 3.1).

    a: [..., M, D]; b: [..., S, D]; weight: [D] -> [..., M, S]. Each sign of the weights is one L1 distance of scaled rows, so no
    array [M, S, D] is made. A weight of exactly 0 gets the gradient 0, so do not start there.
    """
    plus, minus = weight.clamp_min(0), weight.neg().clamp_min(0)
    return torch.cdist(a * plus, b * plus, p=1) - torch.cdist(a * minus, b * minus, p=1)


def euclidean_distances(a: Tensor, b: Tensor) -> Tensor:
    """Returns Euclidean distances, not squared. a [..., M, D], b [..., S, D] -> [..., M, S].

    The mode forbids the fast |a|^2 - 2ab + |b|^2, whose error of about 1e-3 for equal rows comes where the gradient is steep.
    """
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


def balanced_mean(losses: Tensor, same: Tensor) -> Tensor:
    """Returns half the mean over equal pairs plus half the mean over unequal ones. losses [P], same bool [P] -> scalar."""
    if same.all() or not same.any():
        raise ValueError("a pair loss needs equal and unequal pairs: two classes, and two pictures of a class.")
    return 0.5 * losses[same].mean() + 0.5 * losses[~same].mean()


def contrastive_losses(distance: Tensor, same: Tensor, margin: float = 10.0) -> Tensor:
    """Pulls equal pairs together and pushes unequal ones apart up to a margin (Hadsell et al. 2006, equation 4).

    distance: [P], not squared; same: bool [P] -> losses [P]
    """
    return 0.5 * torch.where(same, distance.square(), (margin - distance).clamp_min(0).square())


def semi_hard_negatives(squared: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Finds for every anchor and positive the nearest negative that is farther than the positive, or else the farthest.

    Harder negatives, nearer than the positive, can make all embeddings collapse (Schroff et al. 2015, section 3.2).
    squared: distances [B, B]; labels: int64 [B] -> anchor, positive, negative: int64 [P], P ordered pairs of one class
    """
    equal = labels[:, None] == labels
    anchor, positive = (equal & ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)).nonzero().unbind(1)
    to_all = squared.detach()[anchor]  # [P, B]
    stranger = ~equal[anchor]
    if not len(anchor) or not stranger.any(1).all():
        raise ValueError("triplets need two classes, and two pictures of a class.")
    farther = stranger & (to_all > to_all.gather(1, positive[:, None]))
    nearest = to_all.masked_fill(~farther, torch.inf).argmin(1)
    farthest = to_all.masked_fill(~stranger, -torch.inf).argmax(1)
    return anchor, positive, torch.where(farther.any(1), nearest, farthest)


def triplet_loss(embeddings: Tensor, labels: Tensor, margin: float = 0.2) -> Tensor:
    """Mean of max(0, d(a, p) - d(a, n) + margin), d squared, over semi-hard triplets (Schroff et al. 2015, equations 1, 3, 4).

    embeddings: [B, D] of unit length; labels: int64 [B] -> scalar
    """
    squared = euclidean_distances(embeddings, embeddings).square()
    anchor, positive, negative = semi_hard_negatives(squared, labels)
    return (squared[anchor, positive] - squared[anchor, negative] + margin).clamp_min(0).mean()


class SiameseNetwork(FewShotLearner):
    """Scores pairs, and assigns a query to the class whose support pictures it resembles most on average.

    encoder:   pictures [B, c, H, W] -> embeddings [B, D]
    objective: "bce" (Koch et al. 2015: weighted L1 and a sigmoid), "contrastive" or "triplet" (Euclidean distances)
    margin:    of the contrastive or triplet loss; None: 10 or 0.2. Contrastive embeddings are not normalised: those of a fresh
               Conv4 lie about 5 apart
    features:  D; None finds it with a blank 28x28 picture
    """

    def __init__(
        self, encoder: nn.Module, objective: str = "bce", margin: float | None = None, features: int | None = None
    ) -> None:
        super().__init__()
        if objective not in OBJECTIVES:
            raise ValueError(f"objective must be one of {', '.join(OBJECTIVES)}; got {objective!r}.")
        self.encoder, self.objective = encoder, objective
        self.margin = margin if margin is not None else {"triplet": 0.2}.get(objective, 10.0)
        if objective == "bce":
            size = embedding_size(encoder) if features is None else features
            # Log-odds start at 4 for equal embeddings and at 0 for a mean difference of one half, about that of a fresh Conv4.
            # A bias that starts at 0 would delay training by thousands of steps, because Adam moves it by 0.001 a step.
            self.weight = nn.Parameter(torch.full((size,), -8 / size))
            self.bias = nn.Parameter(torch.tensor(4.0))

    def embed(self, x: Tensor) -> Tensor:
        """Pictures [B, c, H, W] -> embeddings [B, D]; of unit length for triplets, as their margin asks."""
        z = self.encoder(x)
        return F.normalize(z, dim=-1) if self.objective == "triplet" else z

    def similarities(self, a: Tensor, b: Tensor) -> Tensor:
        """Every row of a with every row of b: log-odds of "same class" ("bce") or minus the distance.

        a: embeddings [..., M, D]; b: [..., S, D] -> [..., M, S]
        """
        if self.objective == "bce":
            return weighted_l1(a, b, self.weight) + self.bias
        return -euclidean_distances(a, b)

    def score(self, support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> Tensor:
        """support [..., S, D], labels [..., S], query [..., M, D] -> [..., M, n_way]: similarities, averaged over the shots."""
        return class_means(self.similarities(support, query), labels, n_way).mT

    def loss(self, episode: Episode) -> Tensor:
        """The loss over all pairs (or triplets) of an episode's pictures, support or query alike, a scalar.

        Equal and unequal pairs weigh the same: the expectation of drawing as many of the one as of the other.
        """
        labels = torch.cat([episode.support_y, episode.query_y])
        z = self.embed(torch.cat([episode.support_x, episode.query_x]))
        if self.objective == "triplet":
            return triplet_loss(z, labels, self.margin)
        first, second = torch.triu_indices(len(z), len(z), 1, device=z.device)
        same, similar = labels[first] == labels[second], self.similarities(z, z)[first, second]
        if self.objective == "contrastive":
            return balanced_mean(contrastive_losses(-similar, same, self.margin), same)
        return balanced_mean(F.binary_cross_entropy_with_logits(similar, same.to(z.dtype), reduction="none"), same)
