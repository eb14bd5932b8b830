"""Real processes that talk over gloo, started as torchrun starts them, and the toys that they train."""

import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from fsl_course.episodes import EpisodeSampler, SceneSampler, SinusoidSampler
from fsl_course.methods.adapters import Adapters
from fsl_course.methods.anil import ANIL
from fsl_course.methods.base import FewShotLearner
from fsl_course.methods.dense import DenseEncoder, DensePrototypes
from fsl_course.methods.graph import GraphNetwork
from fsl_course.methods.hypernetwork import Hypernetwork
from fsl_course.methods.in_context import InContextLearner
from fsl_course.methods.induction import InductionNetwork
from fsl_course.methods.label_propagation import LabelPropagation
from fsl_course.methods.maml import MAML
from fsl_course.methods.matching import MatchingNetwork
from fsl_course.methods.meta_lstm import MetaLSTM
from fsl_course.methods.meta_sgd import MetaSGD
from fsl_course.methods.prototypical import PrototypicalNetwork
from fsl_course.methods.relation import RelationNetwork
from fsl_course.methods.reptile import Reptile
from fsl_course.methods.ridge import RidgeRegression
from fsl_course.methods.siamese import SiameseNetwork
from fsl_course.methods.simple_shot import SimpleShot
from fsl_course.methods.soft_kmeans import SoftKMeans
from fsl_course.methods.transfer import TransferNetwork
from fsl_course.methods.unsupervised import ProtoCLR
from fsl_course.methods.zero_shot import ZeroShot
from fsl_course.nets import classifier, conv4, mlp
from fsl_course.training.distributed import Processes
from fsl_course.training.loop import fit
from tests.conftest import toy_images

ROOT = Path(__file__).resolve().parents[3]
TASKS, SEED = 4, 3
HEAD = """
import json, os, sys, torch
from pathlib import Path
torch.set_num_threads(1)
from fsl_course.training import distributed
from fsl_course.training.loop import fit
from tests.fsl_course.training.processes import *
"""


def sampler(split: str = "train") -> EpisodeSampler:
    toys = toy_images(24, 8, noise=200)
    described = replace(toys, attributes=torch.arange(72.0).view(24, 3).sin())
    return EpisodeSampler(described.split(split), 3, 1, 2, dtype=torch.float64)


def learners() -> dict[str, FewShotLearner]:
    """Every method, tiny and in float64, always with the same weights."""
    torch.manual_seed(SEED)
    head = classifier(conv4(4), 3)
    found = {
        "prototypical": PrototypicalNetwork(conv4(4)),
        "matching": MatchingNetwork(conv4(4), full_context=True),
        "siamese": SiameseNetwork(conv4(4)),
        "siamese triplet": SiameseNetwork(conv4(4), "triplet"),
        "relation": RelationNetwork(4),
        "in_context": InContextLearner(conv4(4), tokens=8, codes=4),
        "ridge": RidgeRegression(conv4(4)),
        "hypernetwork": Hypernetwork(conv4(4), hidden=6, film=True),
        "soft_kmeans": SoftKMeans(conv4(4), "mask"),
        "unsupervised": ProtoCLR(conv4(4), "nt_xent"),
        "dense": DensePrototypes(DenseEncoder(4, norm="group")),
        "induction": InductionNetwork(conv4(4), slices=2),
        "zero_shot": ZeroShot(conv4(4), 3, head="towers"),
        "adapters": Adapters(conv4(4), steps=1),
        "graph": GraphNetwork(conv4(4), n_way=3, hidden=6),
        "label_propagation": LabelPropagation(conv4(4), neighbours=3),
        "transfer": TransferNetwork(conv4(4, norm="group"), 12),
        "simple_shot": SimpleShot(conv4(4, norm="group"), 12),
        "maml": MAML(head, 0.1, 2),
        "maml at once": MAML(classifier(conv4(4), 3), 0.1, 1, vmap=True),
        "first order": MAML(classifier(conv4(4), 3), 0.1, 2, first_order=True),
        "anil": ANIL(classifier(conv4(4), 3), 0.1, 2),
        "meta_sgd": MetaSGD(classifier(conv4(4), 3), 0.1, 1),
        "reptile": Reptile(classifier(conv4(4), 3), 0.1, 3, batch=2),
        "meta_lstm": MetaLSTM(classifier(conv4(4), 3), 1),
        "sine": MAML(mlp((1, 8, 1)), 0.01, 1),
    }
    return {name: learner.double().train() for name, learner in found.items()}


def tasks_of(name: str) -> EpisodeSampler | SinusoidSampler:
    if name == "dense":
        return SceneSampler(toy_images(24, 8).split("train"), 1, 1, dtype=torch.float64)
    return SinusoidSampler(dtype=torch.float64) if name == "sine" else sampler()


def step(learner: FewShotLearner, source, group: Processes) -> tuple[dict[str, torch.Tensor], float]:
    """Gradients, buffers and loss of one training step, as `fit` makes it."""
    buffers = [(b, b.clone()) for b in learner.buffers()]
    loss = learner.training_step(source.batch(*group.share(TASKS, TASKS)))
    loss.backward()
    value = loss.item()
    if group.size > 1:
        (value,) = group.combine(learner, buffers, [value / group.size])
    found = {f"gradient {n}": p.grad.contiguous() for n, p in learner.named_parameters() if p.grad is not None}
    return found | {f"buffer {n}": b.contiguous() for n, b in learner.named_buffers()}, value


def fit_toy(learner: FewShotLearner, steps: int, checkpoint: Path | None, **more):
    return fit(learner, sampler(), steps=steps, tasks=TASKS, lr=0.01, halve_every=10, validation=sampler("val"),
               validate_every=5, validation_episodes=10, checkpoint=checkpoint, save_every=3, progress=False,
               **more)  # fmt: skip


def toy_learner(seed: int = 0) -> FewShotLearner:
    torch.manual_seed(seed)
    return PrototypicalNetwork(conv4(4)).double()


class Centred(PrototypicalNetwork):
    """Needs the mean embedding of the training pictures, which it computes after training."""

    def __init__(self, seed: int = 0) -> None:
        torch.manual_seed(seed)
        super().__init__(conv4(4))
        self.register_buffer("centre", torch.zeros(4))
        self.double()
        self.calls: list[tuple[bool, bool]] = []

    def after_training(self, sampler: EpisodeSampler) -> None:
        self.calls.append((self.training, torch.is_grad_enabled()))
        self.centre.copy_(self.embed(sampler.source.images.flatten(0, 1).double().div(255)).mean(0))


def weights(module: nn.Module) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in module.state_dict().items()}


def largest_difference(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    assert a.keys() == b.keys()
    return max((a[k].double() - b[k].double()).abs().max().item() for k in a)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def start(code: str, *arguments: object, size: int = 2) -> list[subprocess.Popen]:
    """The same Python code in several processes, each with the environment that torchrun would give it."""
    common = os.environ | {
        "WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
    }  # fmt: skip
    return [
        subprocess.Popen(
            [sys.executable, "-c", HEAD + code, *map(str, arguments)], cwd=ROOT, text=True,
            env=common | {"RANK": str(rank), "LOCAL_RANK": str(rank)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for rank in range(size)
    ]  # fmt: skip


def ended(processes: list[subprocess.Popen], seconds: float = 120) -> list[tuple[int, str, str]]:
    """Exit status, output and errors of each; whatever happens, none is left behind."""
    try:
        found = [process.communicate(timeout=seconds) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, *texts) for process, texts in zip(processes, found, strict=True)]
