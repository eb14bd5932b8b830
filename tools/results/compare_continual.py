"""Classes keep coming: a base session of 60 letters and eight sessions of five, by every way to learn, for lesson 24.

    OMP_NUM_THREADS=1 python -m tools.results.compare_continual

Writes data/continual_comparison.json. A draw takes 100 test letters in a random order, and 12 drawings of each base letter and 5
of each new one to learn from; 8 others of every letter are judged. All rows of a draw start from one base session. The settings
were chosen on letters of the validation split, whose rows begin with "val: ". Takes a quarter of an hour on one quiet core. Call
it again after an interruption: it keeps the rows that are there. Training amplifies rounding, so another processor gives other
counts; rows of one draw belong together only if one machine made them.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from fsl_course import load_glyphs, pretrained
from fsl_course.data import ImageSet
from fsl_course.methods.continual import FrozenPrototypes, GrowingNetwork
from fsl_course.nets import conv4
from tools.results.rows import is_there, kept, write

OUT = Path(__file__).resolve().parents[2] / "data" / "continual_comparison.json"
WIDTH, BASE, NEW, SESSIONS = 16, 60, 5, 8
BASE_SHOTS, SHOTS, JUDGED = 12, 5, 8
BASE_STEPS, BASE_LR, JOINT_STEPS, SNAPSHOTS = 300, 5e-3, 300, 10
# keep, ewc, cosine: of GrowingNetwork; steps, lr, head_only: of its sessions after the first
GROWING: dict[str, dict[str, Any]] = {
    "fine-tuning": {"steps": 20, "lr": 1e-3},
    "fine-tuning, head only": {"steps": 20, "lr": 1e-2, "head_only": True},
    "EWC, weak": {"ewc": 1e4, "steps": 20, "lr": 1e-3},
    "EWC, strong": {"ewc": 1e6, "steps": 20, "lr": 1e-3},
    "replay of 1": {"keep": 1, "steps": 40, "lr": 3e-3},
    "replay of 5": {"keep": 5, "steps": 40, "lr": 3e-3},
    "cosine head": {"cosine": True, "steps": 0, "lr": 0.0},
    "cosine head, trained on": {"cosine": True, "steps": 20, "lr": 1e-3, "head_only": True},
}
GRID: dict[str, dict[str, Any]] = {
    **{f"EWC {w:.0e}": GROWING["EWC, weak"] | {"ewc": w} for w in (1e3, 1e4, 1e5, 1e6)},
    "EWC 1e+06, 40 steps, 0.003": {"ewc": 1e6, "steps": 40, "lr": 3e-3},
    "EWC 1e+06, 100 steps": {"ewc": 1e6, "steps": 100, "lr": 1e-3},
    **{f"replay of 5, {n} steps, {lr}": {"keep": 5, "steps": n, "lr": lr} for n in (20, 40) for lr in (1e-3, 3e-3)},
}
PROTOTYPES, MEANS_AFTER, JOINT, OTHER = (
    "prototypes",
    "fine-tuning, its encoder with true means",
    "joint training",
    "prototypes, other scripts",
)
STORED = "replay of 5, means of its drawings (iCaRL)"
EXAMINED: dict[str, dict[str, Any]] = {  # where did the knowledge of the base letters go?
    "examined: fine-tuning, head only": GROWING["fine-tuning, head only"],
    "examined: fine-tuning": GROWING["fine-tuning"],
    "examined: fine-tuning, rate 0.005": GROWING["fine-tuning"] | {"lr": 5e-3},
    "examined: EWC, strong": GROWING["EWC, strong"],
}
LABELS = (PROTOTYPES, *GROWING, STORED, MEANS_AFTER, JOINT, OTHER, *EXAMINED)


class Draw:
    """100 letters of a source in a random order: base letters first, then five for each session.

    pictures: float [100, 20, 1, 28, 28], the drawings of each letter in a random order
    """

    def __init__(self, source: ImageSet, seed: int) -> None:
        generator = Generator().manual_seed(seed)
        letters = torch.randperm(len(source), generator=generator)[: BASE + NEW * SESSIONS]
        order = torch.stack([torch.randperm(source.images.shape[1], generator=generator) for _ in letters])
        self.seed, self.pictures = seed, source.images[letters[:, None], order].float() / 255

    def session(self, number: int) -> tuple[Tensor, Tensor]:
        """The pictures [S, 1, 28, 28] and labels [S] to learn from in session 0 (base) to 8."""
        first, last = (0, BASE) if number == 0 else (BASE + NEW * (number - 1), BASE + NEW * number)
        shots = SHOTS if number else BASE_SHOTS
        return self.pictures[first:last, :shots].flatten(0, 1), torch.arange(first, last).repeat_interleave(shots)

    @torch.no_grad()
    def correct_among_base(self, net: nn.Module) -> int:
        """Counts the right answers for base letters where only the base letters' scores compete."""
        answers = net(self.pictures[:BASE, -JUDGED:].flatten(0, 1))[:, :BASE].argmax(1).view(BASE, JUDGED)
        return int((answers == torch.arange(BASE)[:, None]).sum())

    @torch.no_grad()
    def correct(self, net: nn.Module, number: int) -> list[int]:
        """Counts the right answers of a net that has met the sessions up to this one: [base, session 1, ...]."""
        met = BASE + NEW * number
        answers = net(self.pictures[:met, -JUDGED:].flatten(0, 1)).argmax(1).view(met, JUDGED)
        right = (answers == torch.arange(met)[:, None]).sum(1)
        return [int(part.sum()) for part in right.split([BASE, *[NEW] * number])]


def base_session(draw: Draw) -> tuple[GrowingNetwork, list[list[int]]]:
    """Trains on the base letters. Returns the net, and at ten times of the training what was right in each judged drawing."""
    torch.manual_seed(draw.seed)
    net, (x, y) = GrowingNetwork(conv4(WIDTH), seed=draw.seed), draw.session(0)
    net.weight = nn.Parameter(torch.zeros(BASE, net.weight.shape[1]))
    solver, seen = torch.optim.Adam(net.parameters(), BASE_LR), []
    for step in range(1, BASE_STEPS + 1):
        rows = torch.randperm(len(y), generator=net.generator)[:64]
        solver.zero_grad()
        F.cross_entropy(net.train()(x[rows]), y[rows]).backward()
        solver.step()
        if step % (BASE_STEPS // SNAPSHOTS) == 0:
            with torch.no_grad():
                answers = net.eval()(draw.pictures[:BASE, -JUDGED:].flatten(0, 1)).argmax(1).view(BASE, JUDGED)
            seen.append((answers == torch.arange(BASE)[:, None]).sum(0).tolist())
    return net.eval(), seen


def prototypes_of(encoder: nn.Module, draw: Draw, every: bool = False) -> tuple[list[list[int]], FrozenPrototypes]:
    """Learns all sessions as running means. Returns what was right after every session, or after the last, and the learner."""
    net, counts = FrozenPrototypes(copy.deepcopy(encoder)), []
    for number in range(SESSIONS + 1):
        net.learn(*draw.session(number))
        if every or number == SESSIONS:
            counts.append(draw.correct(net, number))
    return counts, net


def growing(
    base: GrowingNetwork,
    draw: Draw,
    settings: dict[str, Any],
    judge: Callable[[GrowingNetwork], nn.Module] = lambda net: net,
) -> tuple[list[list[int]], GrowingNetwork]:
    """Goes on from a copy of the base session. Returns what judge(learner) had right after each session, and the learner."""
    own = {name: value for name, value in settings.items() if name in ("keep", "ewc", "cosine")}
    how = {name: value for name, value in settings.items() if name not in own}
    net = GrowingNetwork(copy.deepcopy(base.encoder), seed=draw.seed, **own)
    if not net.cosine:  # a cosine head starts from class means, all others from the head of the base session
        net.weight = nn.Parameter(base.weight.detach().clone())
    net.learn(*draw.session(0), steps=0, lr=0.0)  # stores pictures and Fisher information
    counts = [draw.correct(judge(net), 0)]
    for number in range(1, SESSIONS + 1):
        net.learn(*draw.session(number), **how)
        counts.append(draw.correct(judge(net), number))
    return counts, net


def by_stored_means(net: GrowingNetwork) -> FrozenPrototypes:
    """Names by the nearest mean of the stored drawings, embedded anew, in place of the head (iCaRL: Rebuffi et al. 2017)."""
    learner = FrozenPrototypes(copy.deepcopy(net.encoder))
    for pictures, labels in net.memory:
        learner.learn(pictures.float() / 255, labels)
    return learner


def examined(base: GrowingNetwork, draw: Draw, settings: dict[str, Any]) -> dict[str, Any]:
    """Goes on, then asks for the base letters in five ways. Returns what was right of them, and the end with true means.

    own, means: by its own head, and by the true means of all drawings; each [among all letters, among the base letters only]
    put_back:   among the base letters only, with the rows of the head that the base session ended with
    """
    net = growing(base, draw, settings)[1]
    counts, means = prototypes_of(net.encoder, draw)
    asked = {"own": [draw.correct(net, SESSIONS)[0], draw.correct_among_base(net)]}
    asked["means"] = [counts[-1][0], draw.correct_among_base(means)]
    net.weight = nn.Parameter(base.weight.detach().clone())
    return {"correct": counts, "bytes": means.extra_bytes(), **asked, "put_back": draw.correct_among_base(net)}


def joint(draw: Draw) -> tuple[list[list[int]], GrowingNetwork]:
    """Trains a fresh net on all sessions at once; only the end is judged."""
    torch.manual_seed(draw.seed)
    net = GrowingNetwork(conv4(WIDTH), keep=BASE_SHOTS, seed=draw.seed)  # it must store all pictures
    x, y = (torch.cat(parts) for parts in zip(*(draw.session(t) for t in range(SESSIONS + 1)), strict=True))
    net.learn(x, y, steps=JOINT_STEPS, lr=BASE_LR)
    return [draw.correct(net, SESSIONS)], net


def measured(draw: Draw, there: set[str], settings: dict[str, dict], others: bool) -> Iterator[dict]:
    """Yields the rows of one draw that are not there yet. others: also the rows that are no GrowingNetwork with settings."""
    base, seen = base_session(draw)
    runs: dict[str, Callable[[], tuple[list[list[int]], Any]]] = {}
    if others:
        runs[PROTOTYPES] = lambda: prototypes_of(base.encoder, draw, every=True)
    for name, how in settings.items():
        runs[name] = lambda how=how: growing(base, draw, how)
    if others:
        runs[STORED] = lambda: growing(base, draw, GROWING["replay of 5"], by_stored_means)
        tuned = GROWING["fine-tuning"]
        runs[MEANS_AFTER] = lambda: prototypes_of(growing(base, draw, tuned)[1].encoder, draw)
        runs[JOINT] = lambda: joint(draw)
        runs[OTHER] = lambda: prototypes_of(pretrained("prototypical", "glyphs").encoder, draw)
    for label, run in runs.items():
        if label not in there:
            counts, net = run()
            row = {"label": label, "seed": draw.seed, "correct": counts, "bytes": net.extra_bytes()}
            row["encoder"] = sum(p.nbytes for p in net.encoder.parameters())
            yield row | ({"snapshots": seen} if label == PROTOTYPES else {})
    for label, how in EXAMINED.items() if others else ():
        if label not in there:
            encoder = sum(p.nbytes for p in base.encoder.parameters())
            yield {"label": label, "seed": draw.seed, **examined(base, draw, how), "encoder": encoder}


def main(argv: Sequence[str] | None = None, source: ImageSet | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=20, help="draws of letters and orders, seeds 0, 1, ... (20)")
    parser.add_argument("--tune", type=int, default=2, help="draws of validation letters for the settings (2)")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    head = {
        "command": "OMP_NUM_THREADS=1 python -m tools.results.compare_continual"
        f" --draws {options.draws} --tune {options.tune}",
        "protocol": f"Glyphs, Conv4-{WIDTH}; `correct`: right answers after each session in [base letters, session 1, ...], of "
        f"{BASE * JUDGED} and {NEW * JUDGED}, among all letters met so far; `bytes`: kept beside the `encoder`'s weights; "
        "`snapshots`: right answers at ten times of the base session in each of the 8 judged drawings, of 60; rows `examined`: "
        "right answers for base letters [among all letters, among base letters] by the `own` head and by the true `means`, and "
        "among base letters with the base session's rows `put_back`; their `correct` is that of the true means",
        "train": {"base_steps": BASE_STEPS, "base_lr": BASE_LR, "joint_steps": JOINT_STEPS, **GROWING},
    }
    rows = kept(options.out, head, same=("train",))
    source = load_glyphs() if source is None else source
    plan = [("test", seed, GROWING) for seed in range(options.draws)]
    plan += [("val", seed, GRID) for seed in range(options.tune)]
    for split, seed, settings in plan:
        prefix = "val: " if split == "val" else ""
        wanted = settings if prefix else LABELS
        if all(is_there(rows, prefix + label, seed) for label in wanted):
            continue
        draw = Draw(source.split(split), seed)
        there = {row["label"][len(prefix) :] for row in rows if row["seed"] == seed and row["label"].startswith(prefix)}
        for row in measured(draw, there, settings, not prefix):
            row["label"] = prefix + row["label"]
            rows.append(row)
            write(options.out, head, rows)
            end = row["correct"][-1]
            shares = [end[0] / BASE / JUDGED, sum(end[1:]) / NEW / SESSIONS / JUDGED]
            print(f"{row['label']:42s} draw {seed}  base {shares[0]:.1%}  new {shares[1]:.1%}", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
