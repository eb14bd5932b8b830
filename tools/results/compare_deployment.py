"""Makes an encoder small and fast in steps, and measures after every step what it costs, for lesson 25.

    OMP_NUM_THREADS=1 python -m tools.results.compare_deployment

Writes data/deployment_comparison.json. First Conv4-16 learns on Glyphs in several ways for the same number of steps: alone, or
from the shipped prototypical network, three seeds each, and once more for a tenth of the steps. Then that network and the student
that validation letters prefer are run by PyTorch and by ONNX Runtime, in float32 and in int8 (`tools.results.deployment_forms`).
Every row answers the same 600 episodes of test letters, so differences can be paired. Takes half an hour on a quiet core; called
again, it goes on with the rows that are missing. Needs pip install "fsl-course[deploy]".
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fsl_course import EpisodeSampler, load_glyphs, pretrained
from fsl_course.data import ImageSet
from fsl_course.evaluation import embed_all
from fsl_course.methods.prototypical import PrototypicalNetwork, prototypes, squared_distances
from fsl_course.nets import conv4
from tools.results import deployment_forms as forms
from tools.results.rows import is_there, kept, write

OUT = Path(__file__).resolve().parents[2] / "data" / "deployment_comparison.json"
WIDTH, WAY, N_QUERY, LR, TEMPERATURE = 16, 30, 5, 1e-2, 4.0
CELLS = ((5, 1), (20, 1))  # way, shot
TEST_QUERY = 15
TEACHER, ALONE = "teacher", "alone"
SHORT = 300  # steps of the rows that stop early


class Step(NamedTuple):
    """What a loss may look at in one episode: embeddings of support and queries, first the student's and then the teacher's.

    mine: [S + M, 16]; theirs: [S + M, 64]; labels [S] and truth [M] of the slots
    """

    mine: Tensor
    theirs: Tensor
    labels: Tensor
    truth: Tensor

    def logits(self, rows: Tensor) -> Tensor:
        """Minus the squared distances of the queries to the class means of the support -> [M, WAY]."""
        shots = len(self.labels)
        return -squared_distances(rows[shots:], prototypes(rows[:shots], self.labels, WAY))


def _alone(step: Step, extra: nn.Module) -> Tensor:
    return F.cross_entropy(step.logits(step.mine), step.truth)


def _softened(step: Step, extra: nn.Module) -> Tensor:
    return TEMPERATURE * F.cross_entropy(step.logits(step.mine) / TEMPERATURE, step.truth)


def _logits(step: Step, extra: nn.Module) -> Tensor:
    mine, theirs = ((step.logits(rows) / TEMPERATURE).log_softmax(1) for rows in (step.mine, step.theirs))
    return TEMPERATURE**2 * F.kl_div(mine, theirs, reduction="batchmean", log_target=True)


def _embeddings(step: Step, extra: nn.Module) -> Tensor:
    return F.mse_loss(extra(step.mine), step.theirs) / step.theirs.var()


LOSSES: dict[str, Callable[[Step, nn.Module], Tensor]] = {
    ALONE: _alone,
    "alone, softened": _softened,
    "logits": _logits,
    "embeddings": _embeddings,
}


def train(label: str, seed: int, steps: int, source: ImageSet, table: Tensor) -> PrototypicalNetwork:
    """Trains a student. table: the teacher's embedding [C*n, 64] of every drawing of the source, computed once."""
    torch.manual_seed(seed)
    net, extra = conv4(WIDTH), nn.Linear(WIDTH, table.shape[1])
    solver = torch.optim.Adam([*net.parameters(), *extra.parameters()], LR)
    slower = torch.optim.lr_scheduler.CosineAnnealingLR(solver, steps)
    sampler, pictures = EpisodeSampler(source, WAY, 1, N_QUERY, seed=seed), source.images.flatten(0, 1)
    for number in range(steps):
        drawn = sampler.layout(number, 1)
        rows = torch.cat([drawn.support[0], drawn.query[0]])
        step = Step(net(pictures[rows].float() / 255), table[rows], drawn.support_y[0], drawn.query_y[0])
        solver.zero_grad()
        LOSSES[label](step, extra).backward()
        solver.step()
        slower.step()
    return PrototypicalNetwork(net).eval()


@torch.no_grad()
def answers(table: Tensor, source: ImageSet, way: int, shot: int, episodes: int, half: bool = False) -> list[int]:
    """Counts the right answers of each episode, by the nearest class mean. table: embeddings [C*n, D] of all drawings.

    half: the means are stored in float16
    """
    drawn = EpisodeSampler(source, way, shot, TEST_QUERY, seed=0).layout(0, episodes)
    found = []
    for low in range(0, episodes, 50):
        part = slice(low, low + 50)
        centres = prototypes(table[drawn.support[part]], drawn.support_y[part], way)
        centres = centres.half().float() if half else centres
        nearest = squared_distances(table[drawn.query[part]], centres).argmin(-1)
        found += (nearest == drawn.query_y[part]).sum(-1).tolist()
    return found


def results(table: Tensor, source: ImageSet, episodes: int, half: bool = False) -> list[dict[str, Any]]:
    """Judges embeddings in every cell."""
    cells = [(way, shot) for way, shot in CELLS if way <= len(source)]
    return [{"way": w, "shot": s, "correct": answers(table, source, w, s, episodes, half)} for w, s in cells]


def share(table: Tensor, source: ImageSet, episodes: int) -> float:
    """The accuracy in the last cell."""
    way, shot = CELLS[-1]
    return sum(answers(table, source, way, shot, episodes)) / (episodes * way * TEST_QUERY)


def chosen(rows: list[dict[str, Any]], steps: int) -> str:
    """Returns the label of the students that learn from the teacher and do best on validation letters, over all seeds."""
    taught = [row for row in rows if row.get("steps") == steps and not row["label"].startswith(ALONE)]
    labels = {row["label"]: [r["val"] for r in taught if r["label"] == row["label"]] for row in taught}
    return max(labels, key=lambda label: sum(labels[label]) / len(labels[label]))


def plan_of(steps: int, seeds: int) -> list[tuple[str, str, int, int]]:
    """Returns a row of the file for every student: its label there, its loss, its seed and its steps."""
    full = [(label, label, seed, steps) for label in LOSSES for seed in range(seeds)]
    return full + [(f"{label}, {SHORT} steps", label, seed, SHORT) for label in LOSSES for seed in range(seeds)]


class Students:
    """Students by loss, seed and steps; their weights are kept in a folder, so that none is trained twice."""

    def __init__(self, source: ImageSet, folder: Path) -> None:
        self.source, self.folder = source, folder
        self.teacher = pretrained("prototypical", "glyphs").eval()
        self._table: Tensor | None = None

    def __call__(self, label: str, seed: int, steps: int) -> PrototypicalNetwork:
        path = self.folder / f"{label.replace(', ', '-').replace(' ', '_')}-{seed}-{steps}.pt"
        net = PrototypicalNetwork(conv4(WIDTH)).eval()
        if path.exists():
            net.load_state_dict(torch.load(path))
            return net
        if self._table is None:
            self._table = embed_all(self.teacher, self.source.images.flatten(0, 1))
        net = train(label, seed, steps, self.source, self._table)
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(net.state_dict(), path)
        return net


def head_of(options: argparse.Namespace) -> dict[str, Any]:
    """Returns what stands in the file above its rows."""
    return {
        "command": "OMP_NUM_THREADS=1 python -m tools.results.compare_deployment"
        f" --steps {options.steps} --seeds {options.seeds} --episodes {options.episodes} --rounds {options.rounds}",
        "protocol": f"Glyphs; `correct`: right answers of each of {options.episodes} episodes, of {TEST_QUERY} for each way; "
        f"`val`: accuracy on validation letters, {CELLS[-1][0]} ways; `bytes` of the file; `parity`: largest difference and "
        "relative length of the difference to the embeddings of the same net in PyTorch; `times`: quartiles of the ratio to the "
        "first form at batch 1 and 64, processor time of one thread, in turns; `memory`: peak MB of a fresh process, batch 64",
        "episodes": options.episodes,
        "train": {"steps": options.steps, "way": WAY, "query": N_QUERY, "lr": LR, "temperature": TEMPERATURE},
    }


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=3000, help="of every student (3000)")
    parser.add_argument("--seeds", type=int, default=3, help="of every student, 0, 1, ... (3)")
    parser.add_argument("--episodes", type=int, default=600, help="of test letters (600)")
    parser.add_argument("--rounds", type=int, default=200, help="in which latency is measured (200)")
    parser.add_argument("--kept", type=Path, default=Path("build/deployment"), help="folder of the students' weights")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    head, (train_set, val, test) = head_of(options), (load_glyphs().split(n) for n in ("train", "val", "test"))
    rows, students = kept(options.out, head), Students(train_set, options.kept)

    def add(row: dict[str, Any]) -> None:
        rows.append(row)
        write(options.out, head, rows)
        told = [sum(p["correct"]) / (len(p["correct"]) * p["way"] * TEST_QUERY) for p in row["results"]]
        print(f"{row['label']:40s} seed {row['seed']}  " + "  ".join(f"{t:.2%}" for t in told), flush=True)

    for label, loss, seed, steps in [(TEACHER, "", 0, 0), *plan_of(options.steps, options.seeds)]:
        if not is_there(rows, label, seed):
            net = students(loss, seed, steps) if loss else students.teacher
            there, judged = (embed_all(net, part.images.flatten(0, 1)) for part in (val, test))
            row = {"label": label, "seed": seed, "steps": steps, "val": share(there, val, options.episodes // 2)}
            add(row | {"results": results(judged, test, options.episodes)})
    best = chosen(rows, options.steps)
    nets = {"Conv4-64": students.teacher.encoder, f"Conv4-{WIDTH}": students(best, 0, options.steps).encoder}
    if not all(is_there(rows, f"{name}, {kind}", 0) for name in nets for kind in forms.KINDS):
        rows[:] = [row for row in rows if "net" not in row]
        drawings = train_set.images.flatten(0, 1)
        order = torch.randperm(len(drawings), generator=torch.Generator().manual_seed(0))
        for row, table in forms.measured(nets, drawings[order[:256]].float() / 255, test, options.rounds):
            half = row["label"].endswith(forms.HALF)
            add(row | {"student": best, "results": results(table, test, options.episodes, half)})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
