"""Small learners and tasks for the tests of training."""

import torch

from fsl_course.episodes import EpisodeSampler
from fsl_course.methods.base import FewShotLearner
from fsl_course.methods.prototypical import PrototypicalNetwork
from fsl_course.nets import conv4
from tests.conftest import toy_images


def learner(seed: int = 0) -> PrototypicalNetwork:
    torch.manual_seed(seed)
    return PrototypicalNetwork(conv4(8))


def samplers() -> tuple[EpisodeSampler, EpisodeSampler]:
    source = toy_images(24, 8, noise=200)
    return EpisodeSampler(source.split("train"), 5, 1, 3), EpisodeSampler(source.split("val"), 5, 1, 3)


def weights(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in module.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


class Recorder(FewShotLearner):
    """One weight whose gradient is a constant 1000."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.gradients: list[float] = []
        self.weight.register_post_accumulate_grad_hook(lambda p: None)

    def training_step(self, episodes):
        return 1000 * self.weight.sum()
