"""Computes every numeric answer of the quiz bank in another way than the text of its question does."""

from __future__ import annotations

import math
import statistics
from itertools import combinations

import torch
import torch.nn.functional as F
from scipy.special import stdtrit

from fsl_course.methods.continual import ewc_penalty
from fsl_course.methods.dense import compared, masked_average
from fsl_course.methods.hallucination import calibrated, kl_to_prior
from fsl_course.methods.in_context import context_mask, linear_attention
from fsl_course.methods.induction import squash
from fsl_course.methods.label_propagation import affinities, propagate
from fsl_course.methods.maml import adapt
from fsl_course.methods.maml_rl import returns_to_go
from fsl_course.methods.matching import class_log_probabilities
from fsl_course.methods.meta_lstm import preprocess
from fsl_course.methods.prototypical import cosine_similarities, prototypes, squared_distances
from fsl_course.methods.ridge import solve_primal
from fsl_course.methods.siamese import weighted_l1
from fsl_course.methods.soft_kmeans import refined, shares
from fsl_course.methods.unsupervised import nt_xent
from fsl_course.methods.zero_shot import dap_scores, eszsl
from fsl_course.trust.attacks import project
from fsl_course.trust.calibration import auroc, calibration_error
from fsl_course.trust.influence import prototypes_without_each


def tensor(*rows: object) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def first_order_rest(valleys: list[tuple[float, float]], lr: float) -> float:
    """Returns where the query slopes after one step cancel, found by gradient descent."""
    theta = 0.0
    for _ in range(2000):
        theta -= 0.1 * sum(h * (theta - lr * h * (theta - b) - b) for h, b in valleys)
    return theta


def descend(loss, theta: float, lr: float, steps: int) -> torch.Tensor:
    return adapt(lambda p: loss(p["t"]), {"t": torch.tensor(theta, dtype=torch.float64)}, lr=lr, steps=steps)["t"]


def meta_gradient_08_1() -> float:
    theta = torch.tensor(0.0, dtype=torch.float64, requires_grad=True)
    moved = adapt(lambda p: (p["t"] - 1) ** 2, {"t": theta}, lr=0.1, steps=1)["t"]
    return float(torch.autograd.grad(2 * (moved - 3) ** 2, theta)[0])


def meta_gradient_08_3() -> float:
    theta = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    one = adapt(lambda p: 2 / 2 * p["t"] ** 2, {"t": theta}, lr=0.1, steps=1)["t"]
    two = adapt(lambda p: 3 / 2 * p["t"] ** 2, {"t": one}, lr=0.1, steps=1)["t"]
    return float(torch.autograd.grad(5 * two, theta)[0])


def first_order_error_08_8() -> float:
    theta, gradients = torch.tensor(1.0, dtype=torch.float64, requires_grad=True), []
    for first_order in (True, False):
        moved = adapt(lambda p: 3 / 2 * p["t"] ** 2, {"t": theta}, lr=0.1, steps=1, first_order=first_order)["t"]
        gradients.append(float(torch.autograd.grad((moved - 4) ** 2, theta)[0]))
    return abs(gradients[0] - gradients[1]) / abs(gradients[1])


def truncated_11_5() -> float:
    a = torch.tensor(3.0, requires_grad=True)
    theta = torch.tensor(1.0)
    for _ in range(3):
        theta = a * theta
    return float(torch.autograd.grad(a * theta.detach(), a)[0])


def bias_slope_02_4() -> float:
    bias = torch.zeros(4, requires_grad=True)
    return float(torch.autograd.grad(F.cross_entropy(bias[None], torch.tensor([1])), bias)[0][1])


def divisor_05_5() -> float:
    """Divides a difference of squared distances by the log-odds of two Gaussian classes of variance 2."""
    point, centres = tensor([1, 0]), tensor([0, 0], [3, 1])
    logs = torch.distributions.Normal(centres, math.sqrt(2)).log_prob(point).sum(1)
    distances = squared_distances(point, centres)[0]
    return float((distances[1] - distances[0]) / (logs[0] - logs[1]))


def kernel_07_5() -> float:
    def gradient(x: float) -> torch.Tensor:
        params = torch.zeros(2, dtype=torch.float64, requires_grad=True)
        return torch.autograd.grad(params[0] * x + params[1], params)[0]

    return float(gradient(2.0) @ gradient(3.0))


def curve_07_6() -> float:
    phases = torch.linspace(0, math.pi, 100_001, dtype=torch.float64)
    return float(torch.trapezoid(torch.sin(0 - phases), phases) / math.pi)  # at x = 0, where cos x = 1 and E[a] = 1


def balance_06_2() -> float:
    """Returns the common score of 10 pairs at which the squared error's gradients cancel, by descent on a common logit."""
    logit = torch.zeros((), dtype=torch.float64, requires_grad=True)
    target = F.one_hot(torch.tensor(0), 10)
    for _ in range(2000):
        loss = ((logit.expand(10).sigmoid() - target) ** 2).sum()
        logit = (logit - torch.autograd.grad(loss, logit)[0]).detach().requires_grad_()
    return float(logit.detach().sigmoid())


def edge_of_weight_14(distance: float, s: float) -> torch.Tensor:
    """Returns the weight that the package gives two nodes, whose mean squared distance is the unit of its sigma."""
    return affinities(tensor([0, 0], [distance, 0]), None, s / distance)[0, 1]


COMPUTED = {
    "00-1": lambda: next(q for q in range(42) if 6 * (2 + q) == 42),
    "00-5": lambda: 100 / 8,
    "00-6": lambda: float((tensor(0.8, 0.6, 1.0) > tensor(0.8, 0.4, 0.5)).double().mean()),
    "01-1": lambda: [9, 4, 7].index(7),
    "01-3": lambda: stdtrit(143, 0.975) * 12 / math.sqrt(144),
    "01-9": lambda: 1 - (1 - 0.01) ** 100,
    "02-2": lambda: float(cosine_similarities(tensor([6, 8]), tensor([0, 5]))),
    "02-4": bias_slope_02_4,
    "02-8": lambda: sum(p.numel() for p in torch.nn.Linear(64, 916).parameters()),
    "03-1": lambda: len(list(combinations(range(10), 2))),
    "03-2": lambda: sum(a // 2 == b // 2 for a, b in combinations(range(10), 2)) / 45,
    "03-3": lambda: float((weighted_l1(tensor([0, 0]), tensor([1, 0.5]), tensor(-1, -2)) + 3).sigmoid()),
    "03-7": lambda: max(0, 4 - 5 + 2),
    "03-9": lambda: float(tensor(1, 0.8).pow(9).mean()),
    "04-1": lambda: float(tensor(0, math.log(3)).softmax(0)[1]),
    "04-2": lambda: float(class_log_probabilities(torch.zeros(1, 5), torch.tensor([0, 0, 0, 0, 1]), 2).exp()[0, 1]),
    "04-3": lambda: float((5 * tensor(1, *[0] * 9)).softmax(0)[0]),
    "04-8": lambda: float((10 * tensor(1, 0.8)).softmax(0)[0]),
    "04-9": lambda: math.log(9 * 0.9 / 0.1),
    "05-1": lambda: float(prototypes(tensor([1, 2], [3, 4], [8, 0]), torch.zeros(3, dtype=torch.int64), 1)[0, 0]),
    "05-2": lambda: float((-squared_distances(tensor([1, 0]), tensor([0, 0], [2, 2]))).softmax(1)[0, 0]),
    "05-5": divisor_05_5,
    "06-1": lambda: 10 * 3 * 10,
    "06-2": balance_06_2,
    "06-3": lambda: float((tensor(0.7, 0.2, 0.1) - tensor(1, 0, 0)).square().mean()),
    "06-5": lambda: float((tensor(3, 1)[:, None] > tensor(2, 0)).double().mean()),
    "06-6": lambda: 0.05 * len(list(combinations(range(10), 2))),
    "07-1": lambda: float(descend(lambda w: (w - 4) ** 2, 1.0, 0.25, 1)),
    "07-2": lambda: float(descend(lambda w: w**2, 3.0, 0.25, 3)),
    "07-5": kernel_07_5,
    "07-6": curve_07_6,
    "07-8": lambda: 2 / float(torch.linalg.eigvalsh(torch.diag(tensor(0.5, 4)))[-1]),
    "08-1": meta_gradient_08_1,
    "08-3": meta_gradient_08_3,
    "08-8": first_order_error_08_8,
    "09-1": lambda: float((9 - tensor(1, 3, 5, 7).mean()) / tensor(1, 3, 5, 7).std(correction=0)),
    "09-5": lambda: 0.3 * 10,
    "10-1": lambda: first_order_rest([(2, 0), (1, 3)], 0.25),
    "10-2": lambda: 8 - float(descend(lambda t: t**2 / 2, 8.0, 0.5, 3)),
    "10-3": lambda: 2 * 1000,
    "11-1": lambda: float(preprocess(torch.tensor(math.exp(-2)))[0]),
    "11-2": lambda: float(preprocess(torch.tensor(math.exp(-12)))[1]),
    "11-3": lambda: float(torch.tensor(0.0).sigmoid() * 3 - torch.tensor(0.0).sigmoid() * 2),
    "11-5": truncated_11_5,
    "12-1": lambda: float(solve_primal(tensor([1], [2]), tensor([2], [4]), 5.0)),
    "12-3": lambda: float(tensor(2, 1).square().sum() - squared_distances(tensor([2, 1]), tensor([1, 2]))),
    "12-5": lambda: float(tensor(0 - 0.1 * 2, 1 - 0.1 * 6).mean()),
    "13-1": lambda: float(linear_attention(tensor([1], [3]), tensor([2], [4]), tensor([2]), 0.5)),
    "13-2": lambda: int(context_mask(5, 3).sum()),
    "13-3": lambda: float(tensor(0.3, -1, 2, 0.1).argsort().argsort()[0]),
    "14-1": lambda: float(edge_of_weight_14(2.0, 1.0)),
    "14-3": lambda: 3 / math.sqrt(4 * 9),
    "14-5": lambda: float(propagate(tensor([0, 1], [1, 0]), tensor([1], [0]), 0.5)[1, 0]),
    "15-1": lambda: float(shares(squared_distances(tensor([0.5]), tensor([0], [2])))[0, 0]),
    "15-2": lambda: float(
        refined(tensor([0], [2]), torch.tensor([0, 0]), tensor([4], [6]), tensor([0.5], [0.5]), 1)[0, 0]
    ),
    "15-3": lambda: float((-2 * (tensor(2, 4, 6) / tensor(2, 4, 6).mean() - 0.5)).sigmoid()[1]),
    "16-1": lambda: float(kl_to_prior(tensor([2]), tensor([0]))[0]),
    "16-2": lambda: float(torch.pdist(tensor([0], [0], [6])).mean()),
    "16-3": lambda: float(calibrated(tensor([2]), tensor([3], [7], [20]), torch.ones(3, 1, 1).double(), 2, 0.0)[0]),
    "17-1": lambda: sum(len({i // 2 for i in three}) < 3 for three in combinations(range(6), 3)) / 20,
    "17-2": lambda: float(F.cross_entropy(-squared_distances(tensor([0.5]), tensor([0], [1])), torch.tensor([0]))),
    "17-3": lambda: float(nt_xent(torch.ones(3, 4), torch.ones(3, 4))),
    "18-1": lambda: float(dap_scores(tensor([0.8, 0.3]).logit(), tensor([1, 0]), tensor(0.5, 0.6)).exp()[0, 0]),
    "18-2": lambda: float(eszsl(tensor([1], [3]), tensor([1, -1], [-1, 1]), tensor([1], [0]), 6.0, 1.0)),
    "18-3": lambda: 100 * statistics.harmonic_mean([0.6, 0.2]),
    "19-1": lambda: float(masked_average(tensor([2, 4], [6, 8])[None, None], torch.tensor([[[0, 0], [1, 1]]]).bool())),
    "19-2": lambda: float(compared(tensor(0, 2).view(1, 2, 1, 1), tensor([3, 4]), 20.0)),
    "19-3": lambda: (1 / 4 + 9 / 12) / 2,
    "19-5": lambda: (10 * 8) / (10 * 10),
    "20-1": lambda: len({"plum".join("  ")[i : i + 3] for i in range(4)}),
    "20-2": lambda: 8 * 1 + (20 * 20 - 8) / 49,
    "20-3": lambda: float(squash(tensor([0, 3])).norm()),
    "20-4": lambda: sum(a % 4 == b % 4 for a, b in combinations(range(12), 2)),
    "21-1": lambda: float(returns_to_go(tensor([2, 0, 4, 8]), 0.5)[0, 0]),
    "21-2": lambda: float(descend(lambda t: (t - 3) ** 2, 1.0, 0.1, 1)),
    "21-3": lambda: (5 + 1) / (8 + 2),
    "22-1": lambda: float(prototypes_without_each(tensor([12], [2], [1], [3], [2]), torch.zeros(5).long(), 1)[0, 0]),
    "22-2": lambda: float(
        calibration_error(tensor([0.55, 0.45], [0.65, 0.35], [0.9, 0.1], [0.9, 0.1]), torch.tensor([0, 1, 0, 0]), 4)
    ),
    "22-3": lambda: float(project(tensor(0.95) + 0.1 * tensor(0.02).sign(), tensor(0.85), 0.3)),
    "22-4": lambda: auroc(tensor(5, 3), tensor(4, 1)),
    "23-1": lambda: (1 + 0.5) * 4 - 1,
    "23-2": lambda: float((9 - tensor(1, 3, 5, 7).mean()) / tensor(1, 3, 5, 7).std(correction=0)),
    "23-3": lambda: [60, 70, 80][[3, 4, 4].index(4)],
    "24-1": lambda: 4 + (8 - 4) / 4,
    "24-2": lambda: float(tensor(0.9 - 0.5, 0.6 - 0.4).mean()),
    "24-3": lambda: float(ewc_penalty({"w": tensor(1, 4)}, {"w": tensor(0, 2)}, {"w": tensor(3, 0.5)}, 2.0)),
    "24-5": lambda: 784 // (16 * 4),
    "25-1": lambda: 10 * 10 * 9 * 8 * 8,
    "25-2": lambda: float((tensor(0.034) / (tensor(0.5, -1.27, 0.034).abs().max() / 127)).round()),
    "25-3": lambda: 5**2,
    "25-4": lambda: torch.zeros(64, dtype=torch.float16).nbytes,
    "26-1": lambda: (14 - 2) - round(0.5 * 12) - round(0.25 * 12),
    "26-2": lambda: 100 * (2 / 1) ** 2,
    "26-3": lambda: 100 * 1.77 * 0.1 / 400**0.5,
}
