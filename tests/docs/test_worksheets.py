"""The answers of both worksheets, read out of their pages and computed anew with the package."""

from __future__ import annotations

import math
import re

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fsl_course.episodes import Episode
from fsl_course.methods.maml import adapt, meta_loss
from fsl_course.methods.prototypical import prototypes, squared_distances
from tests.docs.test_teaching import TEACHING, Row, tables


def answers(name: str) -> tuple[str, list[list[Row]]]:
    text = (TEACHING / "worksheets" / f"{name}_answers.md").read_text(encoding="utf-8").replace("−", "-")
    return text, tables(text)


def agrees(printed: str, value: float) -> bool:
    """Whether a printed number is this value, rounded to the digits it shows."""
    digits = len(printed.partition(".")[2])
    return abs(float(printed) - value) <= 0.5 * 10**-digits + 1e-9


def point(text: str) -> list[float]:
    return [float(x) for x in text.strip("() ").split(",")]


@pytest.fixture(scope="module")
def plane() -> dict[str, Tensor]:
    """The numbers of the worksheet's question page."""
    given = tables((TEACHING / "worksheets" / "protonet.md").read_text(encoding="utf-8"))
    rows = [(point(p), int(k)) for k, cell in given[0][1:] for p in re.findall(r"\([^)]+\)", cell)]
    query = given[1][1:]
    return {
        "support": torch.tensor([p for p, _ in rows], dtype=torch.float64),
        "labels": torch.tensor([k for _, k in rows]),
        "query": torch.tensor([point(p) for _, p, _ in query], dtype=torch.float64),
        "query_y": torch.tensor([int(k) for _, _, k in query]),
    }


def test_worksheet_protonet(plane):
    text, found = answers("protonet")
    centres = prototypes(plane["support"], plane["labels"], 2)
    assert [point(row[1]) for row in found[0][1:]] == centres.tolist()
    distances = squared_distances(plane["query"], centres)
    for row, d in zip(found[1][1:], distances, strict=True):
        assert [float(cell) for cell in row[1:]] == pytest.approx([*d.tolist(), *(-d).tolist()])
    p = (-distances).softmax(1)
    losses = F.cross_entropy(-distances, plane["query_y"], reduction="none")
    for row, probabilities, loss in zip(found[2][1:], p, losses, strict=True):
        tie = bool(probabilities[0] == probabilities[1])
        assert row[4] == ("tie" if tie else str(int(probabilities.argmax())))
        assert all(agrees(cell, float(v)) for cell, v in zip((*row[2:4], row[5]), (*probabilities, loss), strict=True))
    assert [float(row[1]) for row in found[2][1:]] == pytest.approx((distances[:, 0] - distances[:, 1]).tolist())
    assert agrees(re.search(r"Mean loss of the episode: ([\d.]+\d)", text)[1], float(losses.mean()))
    assert agrees(re.search(r"share of it: (\d+) %", text)[1], float(100 * losses[2] / losses.sum()))
    slopes = p[:, 1]  # of the loss in either logit, but for the sign; all labels are 0
    assert "two thirds of those slopes" in text
    assert float(slopes[2] / slopes.sum()) == pytest.approx(2 / 3, abs=0.01)
    relabelled = F.cross_entropy(-distances, torch.tensor([0, 0, 1]), reduction="none")
    loss, mean = re.search(r"has the loss ([\d.]+), and the mean loss falls to ([\d.]+\d)", text).groups()
    assert agrees(loss, float(relabelled[2]))
    assert agrees(mean, float(relabelled.mean()))
    plain = (-distances.sqrt()).softmax(1)
    assert agrees(re.search(r"p\(0\) = ([\d.]+), against", text)[1], float(plain[2, 0]))
    assert agrees(re.search(r"p\(0\) of a is ([\d.]+\d)", text)[1], float(plain[0, 0]))
    for row, centre in zip(found[3][1:], centres, strict=True):
        assert point(row[1]) == (2 * centre).tolist()
        assert float(row[2]) == -float(centre.square().sum())
        assert float(row[3]) == float(2 * centre @ plane["query"][1] - centre.square().sum())
    more = torch.cat([plane["support"], torch.tensor([[5.0, 1.0]], dtype=torch.float64)])
    centres = prototypes(more, torch.cat([plane["labels"], torch.tensor([0])]), 2)
    assert point(re.search(r"new prototype is (\([^)]+\))", text)[1]) == centres[0].tolist()
    d = squared_distances(plane["query"][1:2], centres)
    assert float(re.search(r"Distance² of query b: (\d+)", text)[1]) == float(d[0, 0])
    assert agrees(re.search(r"= ([\d.]+\d)\.\n", text.partition("e⁻³")[2])[1], float((-d).softmax(1)[0, 0]))


class Line(nn.Module):
    """y = θ x, in float64: a parabola in θ for every support."""

    def __init__(self) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.tensor(1.0, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return self.theta * x


def as_episode(a: float, s: float, q: float) -> Episode:
    """Support loss a/2 (θ - s)² and query loss (θ - q)², as one row each for the model y = θ x."""
    x, one = math.sqrt(a / 2), torch.ones(1, 1, dtype=torch.float64)
    return Episode(x * one, x * s * one, one, q * one, torch.zeros(0, dtype=torch.int64))


TASKS = ((2.0, 2.0, 3.0), (4.0, -1.0, -2.5))  # (θ - 2)² and (θ - 3)²; 2(θ + 1)² and (θ + 2.5)²


def after_step(theta: float, task: tuple, first_order: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """θ, θ' and the query loss at θ', with a graph."""
    a, s, q = task
    start = torch.tensor(theta, dtype=torch.float64, requires_grad=True)
    moved = adapt(lambda p: a / 2 * (p["t"] - s) ** 2, {"t": start}, lr=0.2, steps=1, first_order=first_order)["t"]
    return start, moved, (moved - q) ** 2


def outer_gradient(theta: float, first_order: bool = False) -> float:
    slopes = []
    for task in TASKS:
        start, _, loss = after_step(theta, task, first_order)
        slopes.append(float(torch.autograd.grad(loss, start)[0]))
    return sum(slopes) / 2


def mean_loss(theta: float) -> float:
    params, net = {"theta": torch.tensor(theta, dtype=torch.float64)}, Line()
    losses = [meta_loss(net, params, as_episode(*t), lr=0.2, steps=1, loss_fn=F.mse_loss) for t in TASKS]
    by_hand = [after_step(theta, task)[2] for task in TASKS]
    assert torch.allclose(torch.stack(losses), torch.stack(by_hand))  # the package's meta_loss, and adapt alone
    return float(torch.stack(losses).mean())


def test_worksheet_maml():
    text, found = answers("maml")
    question = (TEACHING / "worksheets" / "maml.md").read_text(encoding="utf-8")
    assert "| 1 | (θ − 2)² | (θ − 3)² |" in question
    assert "| 2 | 2(θ + 1)² | (θ + 2.5)² |" in question
    for number, (a, s, _) in enumerate(TASKS):
        start, moved, loss = after_step(1.0, TASKS[number])
        query_slope = float(torch.autograd.grad(loss, moved, retain_graph=True)[0])
        follows = float(torch.autograd.grad(moved, start, retain_graph=True)[0])
        whole = float(torch.autograd.grad(loss, start)[0])
        assert agrees(found[0][1 + number][1], a * (1 - s))
        assert agrees(found[0][1 + number][2], moved.item())
        assert agrees(found[1][1 + number][1], loss.item())
        assert agrees(found[1][1 + number][2], query_slope)
        slope, offset = re.fullmatch(r"([\d.]+)θ ([+-] [\d.]+)", found[2][1 + number][1]).groups()
        assert agrees(slope, follows)
        assert float(slope) + float(offset.replace(" ", "")) == pytest.approx(moved.item())
        assert agrees(found[2][1 + number][2], follows)
        assert agrees(found[2][1 + number][3], whole)
    assert agrees(re.search(r"Meta-loss: ([\d.]+)", text)[1], mean_loss(1.0))
    true, first = re.search(r"Mean meta-gradient: (-?[\d.]+\d)\. First order: (-?[\d.]+\d)", text).groups()
    assert agrees(true, outer_gradient(1.0))
    assert agrees(first, outer_gradient(1.0, first_order=True))
    for row, first_order in zip(found[3][1:], (False, True), strict=True):
        theta = 1.0 - 0.5 * outer_gradient(1.0, first_order)
        assert agrees(row[1], theta)
        assert agrees(row[2], mean_loss(theta))
    for pattern, first_order in ((r"meta-gradient is", False), (r"first-order one", True)):
        slope, offset = re.search(pattern + r" ([\d.]+)θ - ([\d.]+\d)", text).groups()
        for theta in (0.0, 1.0):
            assert float(slope) * theta - float(offset) == pytest.approx(outer_gradient(theta, first_order))
    rests = re.search(r"MAML rests at ([\d.]+\d), first order at ([\d.]+\d)", text).groups()
    assert abs(outer_gradient(float(rests[0]))) < 1e-9
    assert abs(outer_gradient(float(rests[1]), first_order=True)) < 1e-9
    reptile = sum(1.0 - after_step(1.0, task)[1].item() for task in TASKS) / 2
    assert agrees(re.search(r"d = ([\d.]+), which", text)[1], reptile)
    assert agrees(re.search(r"moves down, to ([\d.]+\d)\.", text)[1], 1 - 0.5 * reptile)
    slips = found[4][1:]
    assert point(slips[0][1].replace(" and ", ",").split(" in ")[0]) == [2 * (1 - q) for _, _, q in TASKS]
    support = [a * (after_step(1.0, (a, s, q))[1].item() - s) for a, s, q in TASKS]
    assert point(slips[1][1].removeprefix("slopes ").replace(" and ", ",").split(" in ")[0]) == pytest.approx(support)
    assert agrees(slips[2][1].split()[2], 1 - 0.2 * 2 * (1 + 1))
    assert agrees(slips[3][1].split()[2], after_step(1.4, TASKS[1])[1].item())
