"""Relation networks (Sung et al. 2018): the comparison itself is a network, over the feature maps of query and class."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fsl_course.episodes import Episode
from fsl_course.methods.base import FewShotLearner, class_means, class_sums
from fsl_course.nets import conv_block


class RelationModule(nn.Module):
    """g: feature maps of a class and of a query -> one relation logit (figure 2).

    Two blocks of convolution and pooling over the concatenated maps, then two linear layers.
    """

    def __init__(self, width: int, size: int, norm: str = "batch", hidden: int = 8) -> None:
        super().__init__()
        first, *rest = conv_block(2 * width, width, norm, pool=True)
        self.first, self.rest = first, nn.Sequential(*rest, *conv_block(width, width, norm, pool=True), nn.Flatten())
        self.head = nn.Sequential(nn.Linear(width * (size // 4) ** 2, hidden), nn.ReLU(), nn.Linear(hidden, 1))
        self.to(memory_format=torch.channels_last)

    def forward(self, classes: Tensor, query: Tensor) -> Tensor:
        """classes [N, width, h, w], query [M, width, h, w] -> relation logits [M, N], every query with every class.

        The first convolution is linear, so that over concatenated maps it is a convolution of the class plus one of the query:
        N + M convolutions instead of N * M, the same numbers.
        """
        left, right = self.first.weight.chunk(2, dim=1)
        classes = F.conv2d(classes, left, self.first.bias, padding=1)
        query = F.conv2d(query, right, padding=1)
        pairs = (query.unsqueeze(1) + classes).flatten(0, 1)  # [M*N, width, h, w]
        pairs = pairs.contiguous(memory_format=torch.channels_last)
        return self.head(self.rest(pairs)).view(len(query), len(classes))


class RelationNetwork(FewShotLearner):
    """Predicts relation logits, whose sigmoid is the relation score r in [0, 1] (equation 1).

    width:     filters of every block
    objective: "mse" of the scores against 1 for the right class and 0 for the others (equation 2, the paper's), or
               "cross_entropy" of the logits
    shots:     "mean" of the feature maps of a class, whose scale does not change with K, or "sum" (the paper's)
    size:      side of a picture in pixels, a multiple of 4
    """

    def __init__(
        self,
        width: int = 64,
        norm: str = "batch",
        in_channels: int = 1,
        objective: str = "mse",
        shots: str = "mean",
        size: int = 28,
    ) -> None:
        super().__init__()
        if objective not in ("mse", "cross_entropy"):
            raise ValueError(f'objective must be "mse" or "cross_entropy"; got {objective!r}.')
        if shots not in ("mean", "sum"):
            raise ValueError(f'shots must be "mean" or "sum"; got {shots!r}.')
        if size % 4 or size < 16:
            raise ValueError(f"size must be a multiple of 4 and at least 16; got {size}.")
        self.objective, self.shots = objective, shots
        self.maps = (width, size // 4, size // 4)
        self.encoder = nn.Sequential(  # pools only twice, to keep places: 7x7 maps (the authors', unpadded: 5x5)
            *conv_block(in_channels, width, norm, pool=True),
            *conv_block(width, width, norm, pool=True),
            *conv_block(width, width, norm, pool=False),
            *conv_block(width, width, norm, pool=False),
        ).to(memory_format=torch.channels_last)
        self.relation = RelationModule(width, size // 4, norm)

    def embed(self, x: Tensor) -> Tensor:
        """Pictures [B, c, size, size] -> feature maps as rows [B, width * h * w]."""
        if x.shape[-1] // 4 != self.maps[2] or x.shape[-2] // 4 != self.maps[1]:
            raise ValueError(
                f"this relation network takes pictures of {4 * self.maps[1]}x{4 * self.maps[2]} pixels; "
                f"got {list(x.shape)}: make one with size=..."
            )
        return self.encoder(x.contiguous(memory_format=torch.channels_last)).flatten(1)

    def score(self, support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> Tensor:
        """support [..., S, D], labels [..., S], query [..., M, D] -> relation logits [..., M, n_way]; leading axes are tasks."""
        pool = class_means if self.shots == "mean" else class_sums
        classes = pool(support, labels, n_way).unflatten(-1, self.maps)
        query = query.unflatten(-1, self.maps)
        if query.dim() == 4:
            return self.relation(classes, query)
        lead = query.shape[:-4]
        tasks = zip(classes.flatten(0, -5), query.flatten(0, -5), strict=True)
        # task by task, because all pairs of 64 tasks at once would need gigabytes
        return torch.stack([self.relation(c, q) for c, q in tasks]).unflatten(0, lead)

    def loss(self, episode: Episode) -> Tensor:
        """Mean squared error of the relation scores (equation 2, over the pairs), or cross-entropy; a scalar."""
        logits = self(episode)
        if self.objective == "cross_entropy":
            return F.cross_entropy(logits, episode.query_y)
        return F.mse_loss(logits.sigmoid(), F.one_hot(episode.query_y, episode.n_way).to(logits.dtype))
