"""Learning to learn without labels: ProtoCLR (Medina et al. 2020), and NT-Xent (Chen et al. 2020) beside it.

Tasks come from `PictureSampler`. The same tasks with N = 5 and MAML are UMTRA (Khodadadeh et al. 2019).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fsl_course.episodes import Episode
from fsl_course.methods.base import FewShotLearner, embed_episode
from fsl_course.methods.prototypical import cosine_similarities, prototypes, squared_distances

OBJECTIVES = ("prototypes", "nt_xent")


def nt_xent(first: Tensor, second: Tensor, temperature: float = 0.5) -> Tensor:
    """Returns the loss of SimCLR (Chen et al. 2020, equation 1), the mean over all 2B pictures, a scalar.

    first, second: [B, D], row i of both shows the same picture. Each of the 2B embeddings has to find its partner among
    the 2B - 1 others, by cosine over temperature.
    """
    both = F.normalize(torch.cat([first, second]), dim=1)
    scores = (both @ both.T / temperature).fill_diagonal_(-torch.inf)
    return F.cross_entropy(scores, torch.arange(len(both), device=both.device).roll(len(first)))


class ProtoCLR(FewShotLearner):
    """A prototypical network that learns from pictures alone; afterwards it judges labelled tasks like any other.

    encoder:     pictures [B, c, H, W] -> embeddings [B, D]
    objective:   "prototypes": every warped copy has to find its picture among the N, by squared distances, which is the loss of
                 lesson 05; "nt_xent": also the other copies are rivals, by cosine (`nt_xent`). Tasks are judged alike
    temperature: divides the cosines of "nt_xent"
    """

    def __init__(self, encoder: nn.Module, objective: str = "prototypes", temperature: float = 0.5) -> None:
        super().__init__()
        if objective not in OBJECTIVES:
            raise ValueError(f"objective must be one of {', '.join(OBJECTIVES)}; got {objective!r}.")
        if not temperature > 0:
            raise ValueError(f"temperature must be above 0; got {temperature!r}.")
        self.encoder, self.objective, self.temperature = encoder, objective, temperature

    def score(self, support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> Tensor:
        """support [..., S, D], labels [..., S], query [..., M, D] -> logits [..., M, n_way]; leading axes are tasks."""
        centres = prototypes(support, labels, n_way)
        if self.objective == "nt_xent":
            return cosine_similarities(query, centres) / self.temperature
        return -squared_distances(query, centres)

    def loss(self, episode: Episode) -> Tensor:
        """Returns the loss of one task, a scalar. "nt_xent" is the mean over the Q copies, one of each class at a time."""
        if self.objective == "prototypes":
            return super().loss(episode)
        support, query = embed_episode(self, episode)
        pictures = prototypes(support, episode.support_y, episode.n_way)
        copies = query[episode.query_y.argsort(stable=True)].unflatten(0, (episode.n_way, -1))  # [N, Q, D]
        return torch.stack([nt_xent(pictures, copies[:, q], self.temperature) for q in range(copies.shape[1])]).mean()
