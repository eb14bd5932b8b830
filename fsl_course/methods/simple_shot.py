"""SimpleShot (Wang et al. 2019): the nearest class mean of centred features of unit length, without meta-learning."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fsl_course.data.imageset import as_input
from fsl_course.episodes import Episode, EpisodeSampler
from fsl_course.methods.base import FewShotLearner, class_means
from fsl_course.methods.prototypical import squared_distances
from fsl_course.methods.transfer import base_head, pretraining_loss
from fsl_course.nets import embedding_size


class SimpleShot(FewShotLearner):
    """CL2N of the paper (section 2): features are centred by the mean of the base classes and scaled to unit length.

    encoder:  pictures [B, c, H, W] -> embeddings [B, D], pretrained by classification of n_base base classes (linear head)
    features: D; None finds it by embedding a blank 28x28 picture
    mean:     a buffer [D]; zero until training ends, so that validation during training sees features without centring

    The paper trains larger networks by SGD on augmented photographs in shuffled batches; here a batch holds stacked tasks.
    """

    joins_tasks = True

    def __init__(self, encoder: nn.Module, n_base: int, features: int | None = None) -> None:
        super().__init__()
        size = embedding_size(encoder) if features is None else features
        self.encoder, self.head, self.n_base = encoder, base_head(size, n_base), n_base
        self.register_buffer("mean", torch.zeros(size))

    def training_step(self, episodes: Episode) -> Tensor:
        """Returns the loss of pretraining (`pretraining_loss`) on T stacked tasks, a scalar."""
        return pretraining_loss(self.embed, self.head, episodes)

    def after_training(self, sampler: EpisodeSampler) -> None:
        """Computes the mean embedding of all real pictures of sampler.source, a few hundred at a time."""
        images, counts = sampler.source.images, sampler.source.counts
        real = images[torch.arange(images.shape[1], device=images.device) < counts.to(images.device)[:, None]]
        # summed on the CPU in float64, which some GPUs lack
        inputs = (as_input(part.to(self.mean.device), self.mean.dtype) for part in real.split(512))
        total = sum(self.embed(x).cpu().double().sum(0) for x in inputs)
        self.mean.copy_(total / len(real))

    def score(self, support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> Tensor:
        """Scores queries [..., M, D], given support [..., S, D] with labels [..., S] -> [..., M, n_way]; other axes are tasks."""
        support, query = (F.normalize(z - self.mean, dim=-1) for z in (support, query))
        return -squared_distances(query, class_means(support, labels, n_way))
