"""Few-shot segmentation by prototypes (PANet, Wang et al. 2019), and boxes read off its heat map.

Every place of a feature map is compared with two prototypes: the mean of the marked places, and that of the others.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fsl_course.episodes import SceneEpisode
from fsl_course.methods.base import FewShotLearner
from fsl_course.methods.prototypical import cosine_similarities
from fsl_course.nets import _norm, conv4, conv_block


class DenseEncoder(nn.Module):
    """Pictures [B, c, H, W] -> features [B, width, H / 2, W / 2]: a coarse part says what is there, a fine part where the ink is.

    The coarse part is the first three blocks of Conv4, whose third pooling keeps its maps large, then one more block and the
    maximum over 5x5 places: every place of a letter then knows the whole letter. The last layer has no ReLU, as in the authors'
    code, so that cosines use both signs.

    frozen: the three blocks stay as they are. PANet begins with a network trained to classify photographs, and `start_from` with
    one trained to compare letters
    """

    def __init__(self, width: int = 64, norm: str = "batch", in_channels: int = 1, frozen: bool = False) -> None:
        super().__init__()
        self.width, self.in_channels, self.frozen = width, in_channels, frozen
        self.first = conv4(width, norm, in_channels).layers[:10].requires_grad_(not frozen)
        self.what = nn.Sequential(*conv_block(width, width, norm, pool=False), nn.MaxPool2d(5, 1, padding=2))
        self.fine = nn.Sequential(*conv_block(in_channels, width // 4, norm, pool=True))
        self.join = nn.Sequential(
            nn.Conv2d(width + width // 4, width, 1, bias=False),
            _norm(norm, width),
            nn.ReLU(),
            nn.Conv2d(width, width, 1),
        )
        self.to(memory_format=torch.channels_last)

    def start_from(self, encoder: nn.Module) -> None:
        """Copies the first three blocks of a trained Conv4. Raises ValueError if its width or norm is another one."""
        try:
            self.first.load_state_dict(encoder.layers[:10].state_dict())
        except RuntimeError:
            raise ValueError(
                f"dense begins with the blocks of a net of width {encoder.width}: take that width."
            ) from None

    def train(self, mode: bool = True) -> DenseEncoder:
        """Sets the mode; frozen blocks keep their running statistics."""
        super().train(mode)
        self.first.train(mode and not self.frozen)
        return self

    def forward(self, x: Tensor) -> Tensor:
        """x: float [B, c, H, W], H and W divisible by 4 -> [B, width, H / 2, W / 2]."""
        maps = F.max_pool2d(F.pad(self.first(x), (0, 1, 0, 1)), 2, stride=1).relu()
        fine = self.fine(x)
        return self.join(torch.cat([enlarged(self.what(maps), fine), fine], 1))


def enlarged(maps: Tensor, like: Tensor) -> Tensor:
    """Interpolates maps [B, D, h, w] to the height and width of like [..., H, W]."""
    return F.interpolate(maps, like.shape[-2:], mode="bilinear", align_corners=False)


def masked_average(features: Tensor, masks: Tensor) -> Tensor:
    """Returns a prototype [D]: the mean over shots of the mean feature under the mask (equation 1).

    features: [K, D, h, w]; masks: [K, H, W], bool or 0 and 1. The features grow to the mask's size and not the other way round,
    because a thin mask would fall between the places of a coarse map. An empty mask gives zeros.
    """
    weight = masks.to(features.dtype).unsqueeze(1)
    sums = (enlarged(features, masks) * weight).sum((2, 3))
    return (sums / (weight.sum((2, 3)) + 1e-5)).mean(0)


def prototypes_of(features: Tensor, masks: Tensor) -> Tensor:
    """Returns the prototypes of background and object [2, D] (equations 1, 2). features: [K, D, h, w]; masks: bool [K, H, W]."""
    return torch.stack([masked_average(features, ~masks), masked_average(features, masks)])


def compared(features: Tensor, prototypes: Tensor, scale: float) -> Tensor:
    """Returns logits [B, N, h, w]: scale times the cosine of each place with each prototype (equation 3)."""
    return scale * cosine_similarities(features.movedim(1, -1), prototypes).movedim(-1, 1)


class DensePrototypes(FewShotLearner):
    """PANet: segments queries by two prototypes, and learns from the way back, too.

    encoder:    pictures [B, c, H, W] -> features [B, D, h, w]
    scale:      multiplies the cosines; 20 in the paper
    align:      weight of the alignment loss (equation 7); 0 leaves it out, 1 in the paper
    background: False compares the object's cosine with one fixed threshold, 1/2, in place of a prototype
    weight:     how much more a pixel of the object counts in the loss; 1 in the paper, whose objects fill more of the picture
    """

    joins_tasks = True

    def __init__(
        self, encoder: nn.Module, scale: float = 20.0, align: float = 1.0, background: bool = True, weight: float = 2.0
    ) -> None:
        super().__init__()
        self.encoder, self.scale, self.align, self.background, self.weight = encoder, scale, align, background, weight

    def _logits(self, features: Tensor, prototypes: Tensor, like: Tensor) -> Tensor:
        logits = compared(features, prototypes, self.scale)
        if not self.background:
            logits = torch.stack([torch.full_like(logits[:, 1], self.scale / 2), logits[:, 1]], 1)
        return enlarged(logits, like)

    def features(self, episodes: SceneEpisode) -> tuple[Tensor, Tensor]:
        """Returns the feature maps of one task, or of T stacked ones: support [..., K, D, h, w] and queries [..., Q, D, h, w]."""
        shots = episodes.support_x.shape[-4]
        pictures = torch.cat([episodes.support_x, episodes.query_x], -4)
        maps = self.encoder(pictures.flatten(0, -4)).unflatten(0, pictures.shape[:-3])
        return maps[..., :shots, :, :, :], maps[..., shots:, :, :, :]

    def forward(self, episode: SceneEpisode) -> Tensor:
        """Segments the queries of one task -> logits [Q, 2, H, W], background first."""
        support, query = self.features(episode)
        return self._logits(query, prototypes_of(support, episode.support_y), episode.query_x)

    def loss(self, episode: SceneEpisode) -> Tensor:
        """Returns the loss of one task, a scalar."""
        return self._loss(episode, *self.features(episode))

    def training_step(self, episodes: SceneEpisode) -> Tensor:
        """Returns the mean loss of T stacked tasks, whose pictures pass through the encoder together."""
        losses = [self._loss(*task) for task in zip(episodes, *self.features(episodes), strict=True)]
        return torch.stack(losses).mean()

    def _loss(self, episode: SceneEpisode, support: Tensor, query: Tensor) -> Tensor:
        """Cross-entropy of the queries (equation 5) plus align times that of the support, segmented by the answers."""
        logits = self._logits(query, prototypes_of(support, episode.support_y), episode.query_x)
        loss = self._cross_entropy(logits, episode.query_y)
        return loss + self.align * self.alignment(support, episode.support_y, query, logits) if self.align else loss

    def _cross_entropy(self, logits: Tensor, masks: Tensor) -> Tensor:
        return F.cross_entropy(logits, masks.long(), weight=logits.new_tensor([1.0, self.weight]))

    def alignment(self, support: Tensor, masks: Tensor, query: Tensor, logits: Tensor) -> Tensor:
        """Returns the loss of the way back (equation 6): PREDICTED query masks make prototypes that segment the support.

        Nothing flows through the masks. Where no pixel is predicted to be object there is no prototype, and the loss is 0.
        """
        found = logits.argmax(1) == 1
        if not bool(found.any()):
            return logits.new_zeros(())
        return self._cross_entropy(self._logits(support, prototypes_of(query, found), masks), masks)


def iou(answer: Tensor, truth: Tensor) -> Tensor:
    """Returns the intersection over union of one task's masks, bool [Q, H, W], all queries together; 1 if both are empty."""
    union = (answer | truth).sum()
    return (answer & truth).sum() / union if union else torch.ones(())
