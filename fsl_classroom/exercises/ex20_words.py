"""Exercises of lesson 20: hashed n-grams, one step of routing, pairs of sentences, the spread of draws, and repeated pairs.

Cases: every exercise builds its own. The detector 20.5 gets a maker of pairs, and must return True for the broken ones only.
"""

from __future__ import annotations

import itertools
import zlib
from collections import Counter
from collections.abc import Callable

import torch
from torch import Generator, Tensor

from fsl_classroom.checking.model import Case, Exercise, Property, Wrong

# ------------------------------------------------------------------------------------------- 20.1 hashed n-grams


def hashed_counts(sentence: str, n: int, buckets: int) -> Tensor:
    """Returns how many runs of n characters fall into each bucket. Blanks frame the lower-case sentence -> float32 [buckets]."""
    framed = f" {sentence.lower()} "
    counts = torch.zeros(buckets)
    for start in range(len(framed) - n + 1):
        counts[zlib.crc32(framed[start : start + n].encode()) % buckets] += 1
    return counts


def _runs(text: str, n: int) -> list[str]:
    return [text[i : i + n] for i in range(len(text) - n + 1)]


def _counts_of(
    runs: list[str], buckets: int, hashing: Callable[[str], int] = lambda run: zlib.crc32(run.encode())
) -> Tensor:
    counts = torch.zeros(buckets)
    for run in runs:
        counts[hashing(run) % buckets] += 1
    return counts


def _by_bincount(sentence: str, n: int, buckets: int) -> Tensor:
    runs = _runs(" " + sentence.lower() + " ", n)
    found = torch.tensor([zlib.crc32(r.encode("utf-8")) % buckets for r in runs], dtype=torch.int64)
    return found.bincount(minlength=buckets).float()


def _by_counter(sentence: str, n: int, buckets: int) -> Tensor:
    tally = Counter(zlib.crc32(r.encode()) % buckets for r in _runs(f" {sentence} ".lower(), n))
    return torch.tensor([float(tally[b]) for b in range(buckets)])


def _by_zip(sentence: str, n: int, buckets: int) -> Tensor:
    framed = [" ", *sentence.lower(), " "]
    found = torch.zeros(buckets)
    for run in zip(*(framed[j:] for j in range(n)), strict=False):
        found += torch.eye(buckets)[zlib.crc32("".join(run).encode()) % buckets]
    return found


def _by_index_add(sentence: str, n: int, buckets: int) -> Tensor:
    framed = sentence.lower().join("  ")
    where = [zlib.crc32(bytes(framed[i : i + n], "utf-8")) % buckets for i in range(max(0, len(framed) - n + 1))]
    return torch.zeros(buckets).index_add_(0, torch.tensor(where, dtype=torch.long), torch.ones(len(where)))


def _counts_of_bytes(code: bytes, n: int, buckets: int) -> Tensor:
    counts = torch.zeros(buckets)
    for i in range(len(code) - n + 1):
        counts[zlib.crc32(code[i : i + n]) % buckets] += 1
    return counts


def _overwritten(sentence: str, n: int, buckets: int) -> Tensor:
    counts = torch.zeros(buckets)
    for run, number in Counter(_runs(f" {sentence.lower()} ", n)).items():
        counts[zlib.crc32(run.encode()) % buckets] = number
    return counts


def _ngram_cases(generator: Generator) -> list[Case]:
    return [
        Case("'Tea!' with n = 3", ("Tea!", 3, 7)),
        Case("repeated runs, n = 2", ("ananas banana", 2, 11)),
        Case("capitals", ("TURN It Up", 3, 16)),
        Case("letters of two bytes", ("Crème fraîche", 3, 13)),
        Case("n = 1", ("a b a", 1, 5)),
        Case("a sentence as long as one run", ("a", 3, 6)),
        Case("a sentence shorter than one run", ("a", 5, 6)),
        Case("one bucket for everything", ("water the roses", 3, 1)),
        Case("several blanks", (" a  b ", 2, 50)),
        Case("runs that overlap with themselves", ("aaaa", 2, 50)),
        Case("a letter that changes its length in other tables", ("Straße", 2, 50)),
    ]


NGRAMS = Exercise(
    id="20.1",
    title="Hashed n-grams",
    reference=hashed_counts,
    cases=_ngram_cases,
    right=(_by_bincount, _by_counter, _by_zip, _by_index_add),
    wrong=(
        Wrong(
            "no frame",
            lambda s, n, b: _counts_of(_runs(s.lower(), n), b),
            "no blank is put before and after the sentence, so its edges are lost",
            'Cut the runs from `" " + sentence.lower() + " "`.',
            also=(lambda s, n, b: _counts_of(_runs(s, n), b),),
        ),
        Wrong(
            "capitals stay",
            lambda s, n, b: _counts_of(_runs(f" {s} ", n), b),
            "capital letters are kept, or made, where all letters should be small",
            "Take `sentence.lower()` first.",
            also=(
                lambda s, n, b: _counts_of(_runs(f" {s.upper()} ", n), b),
                lambda s, n, b: _counts_of(_runs(f" {s[:1].lower() + s[1:]} ", n), b),
            ),
        ),
        Wrong(
            "once each",
            lambda s, n, b: _counts_of(list(dict.fromkeys(_runs(f" {s.lower()} ", n))), b),
            "every run counts once, however often it occurs",
            "Count all occurrences: no `set`.",
        ),
        Wrong(
            "present or absent",
            lambda s, n, b: hashed_counts(s, n, b).clamp(max=1),
            "buckets say only whether a run fell into them, not how many",
            "Add 1 for every run: `counts[bucket] += 1`.",
        ),
        Wrong(
            "one run too few",
            lambda s, n, b: _counts_of(_runs(f" {s.lower()} ", n)[:-1], b),
            "runs at the edges of the framed sentence are missing, the first one, the last one or several",
            "There are `len(framed) - n + 1` runs, and the frame has a blank on *both* sides.",
            also=(
                lambda s, n, b: _counts_of(_runs(f" {s.lower()} ", n)[1:], b),
                lambda s, n, b: _counts_of(_runs(f" {s.lower()} ", n)[: max(0, len(s) - n + 1)], b),
            ),
        ),
        Wrong(
            "Python's hash",
            lambda s, n, b: _counts_of(_runs(f" {s.lower()} ", n), b, lambda r: sum(map(ord, r)) * 31 + 7),
            "the buckets come from another hash than `zlib.crc32`; Python's own `hash` even changes from run to run",
            "Take `zlib.crc32(run.encode()) % buckets`.",
            also=(
                lambda s, n, b: _counts_of(_runs(f" {s.lower()} ", n), b, hash),
                lambda s, n, b: _counts_of(_runs(f" {s.lower()} ", n), b, lambda r: zlib.adler32(r.encode())),
                lambda s, n, b: _counts_of(_runs(f" {s.lower()} ", n), b, lambda r: sum(map(ord, r))),
            ),
        ),
        Wrong(
            "blocks",
            lambda s, n, b: _counts_of(
                [r for r in (f" {s.lower()} "[i : i + n] for i in range(0, len(s) + 2, n)) if len(r) == n], b
            ),
            "the sentence is cut into blocks that do not overlap",
            "A run begins at every character: step 1, not n.",
            also=(lambda s, n, b: _counts_of([f" {s.lower()} "[i : i + n] for i in range(0, len(s) + 2, n)], b),),
        ),
        Wrong(
            "short ends",
            lambda s, n, b: _counts_of([f" {s.lower()} "[i : i + n] for i in range(len(s) + 2)], b),
            "the ends of the sentence give runs that are shorter than n",
            "Stop where a whole run no longer fits: `range(len(framed) - n + 1)`.",
            also=(lambda s, n, b: _counts_of([f" {s.lower()} "[i : i + n] for i in range(len(s) + 4 - n)], b),),
        ),
        Wrong(
            "words",
            lambda s, n, b: _counts_of(s.lower().split(), b),
            "words or the whole sentence are hashed, not runs of n characters",
            "Slide a window of n characters over the framed sentence.",
            also=(
                lambda s, n, b: _counts_of([f" {s.lower()} "], b),
                lambda s, n, b: _counts_of(
                    [" ".join(s.lower().split()[i : i + n]) for i in range(len(s.split()) - n + 1)], b
                ),
            ),
        ),
        Wrong(
            "words alone",
            lambda s, n, b: _counts_of([r for w in s.lower().split() for r in _runs(f" {w} ", n)], b),
            "the runs are cut word by word, so runs across words are lost",
            "Frame the sentence once, and let runs cross its blanks.",
            also=(lambda s, n, b: _counts_of([r for w in s.lower().split() for r in _runs(w, n)], b),),
        ),
        Wrong(
            "blanks removed",
            lambda s, n, b: hashed_counts(s.strip(), n, b),
            "blanks of the sentence itself are removed before it is framed",
            "Take the sentence as it is, with all its blanks.",
            also=(
                lambda s, n, b: hashed_counts(" ".join(s.split()), n, b),
                lambda s, n, b: hashed_counts(s.replace(" ", ""), n, b),
            ),
        ),
        Wrong(
            "another frame",
            lambda s, n, b: _counts_of(_runs(f"_{s.lower()}_", n), b),
            "another sign than a blank frames the sentence",
            "The frame is one blank on either side.",
            also=(
                lambda s, n, b: _counts_of(_runs(f"<{s.lower()}>", n), b),
                lambda s, n, b: _counts_of(_runs(f"#{s.lower()}#", n), b),
            ),
        ),
        Wrong(
            "another length",
            lambda s, n, b: _counts_of([f" {s.lower()} "[i : i + n + 1] for i in range(len(s) + 3 - n)], b),
            "the runs that are cut out are one character longer or shorter than n",
            "A slice `framed[i : i + n]` has n characters: the end is not part of it.",
            also=(
                lambda s, n, b: _counts_of([f" {s.lower()} "[i : i + n - 1] for i in range(len(s) + 3 - n)], b),
                lambda s, n, b: _counts_of(_runs(f" {s.lower()} ", n + 1), b),
                lambda s, n, b: _counts_of(_runs(f" {s.lower()} ", n - 1), b),
            ),
        ),
        Wrong(
            "runs without blanks",
            lambda s, n, b: _counts_of([r.strip() for r in _runs(f" {s.lower()} ", n)], b),
            "blanks are taken off the *runs*: a run at an edge then looks like one inside",
            "Hash each run with its blanks.",
        ),
        Wrong(
            "empty buckets at the end",
            lambda s, n, b: (lambda c: c[: int(c.nonzero().max()) + 1] if c.any() else c[:0])(hashed_counts(s, n, b)),
            "the counts end with the last bucket that is in use",
            "`torch.bincount(..., minlength=buckets)`, or start from `torch.zeros(buckets)`.",
        ),
        Wrong(
            "numbers of the buckets",
            lambda s, n, b: torch.tensor(
                [float(zlib.crc32(r.encode()) % b) for r in _runs(f" {s.lower()} ", n)], dtype=torch.float32
            ),
            "the bucket of each run is returned, not how many runs each bucket has",
            "Count: start from `torch.zeros(buckets)` and add 1 for every run.",
            also=(
                lambda s, n, b: torch.tensor(
                    [zlib.crc32(r.encode()) % b for r in _runs(f" {s.lower()} ", n)], dtype=torch.int64
                ),
            ),
        ),
        Wrong(
            "as long as one run",
            lambda s, n, b: hashed_counts(s, n, b) * (len(s) + 2 > n),
            "a framed sentence of exactly n characters counts as too short; it is one run",
            "Only a framed sentence *shorter* than n has no run.",
        ),
        Wrong(
            "more blanks",
            lambda s, n, b: _counts_of(_runs(" " * (n - 1) + s.lower() + " " * (n - 1), n), b),
            "another number of blanks than one stands before and after the sentence",
            "The frame is one blank on either side, whatever n is.",
            also=(lambda s, n, b: _counts_of(_runs(f"  {s.lower()}  ", n), b),),
        ),
        Wrong(
            "no punctuation",
            lambda s, n, b: hashed_counts("".join(c for c in s if c.isalnum() or c == " "), n, b),
            "marks such as ! are left out",
            "Every character counts, marks too.",
        ),
        Wrong(
            "copies that overlap",
            lambda s, n, b: _counts_of(
                [r for r in dict.fromkeys(_runs(f" {s.lower()} ", n)) for _ in range(f" {s.lower()} ".count(r))], b
            ),
            "`str.count` counts a run, and that skips copies which overlap: it finds `aa` only twice in `aaaa`",
            "Slide the window by one character, and count each window.",
        ),
        Wrong(
            "buckets overwritten",
            _overwritten,
            "a run that falls into a bucket replaces what another run has put there",
            "Add to the bucket: `counts[bucket] += number`.",
        ),
        Wrong(
            "all lengths",
            lambda s, n, b: sum(hashed_counts(s, k, b) for k in range(1, n + 1)),
            "runs of other lengths than n are counted, too",
            "Count the runs of exactly n characters.",
            also=(lambda s, n, b: sum((hashed_counts(s, k, b) for k in range(2, n + 1)), torch.zeros(b)),),
        ),
        Wrong(
            "a bucket left free",
            lambda s, n, b: _counts_of(
                _runs(f" {s.lower()} ", n), b, lambda r: zlib.crc32(r.encode()) % max(b - 1, 1) + (b > 1)
            ),
            "bucket 0 is left free, as a table does that keeps it for padding",
            "The bucket is `zlib.crc32(run.encode()) % buckets`, and may be 0.",
        ),
        Wrong(
            "runs of bytes",
            lambda s, n, b: _counts_of_bytes(f" {s.lower()} ".encode(), n, b),
            "the runs have n *bytes*; a letter such as è has two",
            "Cut the text first, then encode each run.",
        ),
        Wrong(
            "another encoding",
            lambda s, n, b: _counts_of(
                _runs(f" {s.lower()} ", n), b, lambda r: zlib.crc32(r.encode("ascii", "ignore"))
            ),
            "letters beyond a to z are dropped or encoded in another way than UTF-8",
            "`run.encode()` without arguments is UTF-8.",
            also=(
                lambda s, n, b: _counts_of(
                    _runs(f" {s.lower()} ", n), b, lambda r: zlib.crc32(r.encode("latin-1", "replace"))
                ),
                lambda s, n, b: hashed_counts(s.encode("ascii", "ignore").decode(), n, b),
                lambda s, n, b: _counts_of(_runs(f" {s.lower()} ", n), b, lambda r: zlib.crc32(r.encode("utf-16"))),
            ),
        ),
        Wrong(
            "other small letters",
            lambda s, n, b: hashed_counts(s.casefold(), n, b),
            "`casefold` makes ss of ß, and `lower` does not",
            "Take `sentence.lower()`.",
        ),
        Wrong(
            "short sentence as a run",
            lambda s, n, b: _counts_of([f" {s.lower()} "[i : i + n] for i in range(max(1, len(s) + 3 - n))], b),
            "a sentence shorter than n counts as one run",
            "Without a whole run all counts are zero.",
        ),
        Wrong(
            "shares",
            lambda s, n, b: hashed_counts(s, n, b) / hashed_counts(s, n, b).sum().clamp_min(1),
            "the counts are divided by their sum or their length, or a logarithm or a root is taken of them",
            "Return the counts themselves.",
            also=(
                lambda s, n, b: torch.nn.functional.normalize(hashed_counts(s, n, b), dim=0),
                lambda s, n, b: hashed_counts(s, n, b).log1p(),
                lambda s, n, b: hashed_counts(s, n, b).sqrt(),
            ),
        ),
    ),
    hints=(
        "How many windows of n characters fit into the framed sentence?",
        "Slide a window over `' ' + sentence.lower() + ' '`, hash it, and count its bucket.",
        "`for i in range(len(framed) - n + 1): counts[zlib.crc32(framed[i : i + n].encode()) % buckets] += 1`",
    ),
)

# ------------------------------------------------------------------------------------------- 20.2 one step of routing


def _squash(x: Tensor) -> Tensor:
    square = x.square().sum(-1, keepdim=True)
    return x * square.clamp_min(1e-30).sqrt() / (1 + square)


def routing_step(votes: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
    """One iteration of routing. votes [N, K, D], logits [N, K] -> class vectors [N, D], new logits [N, K]."""
    shares = logits.softmax(1)
    total = (shares[..., None] * votes).sum(1)
    square = total.square().sum(-1, keepdim=True)
    classes = total * square.clamp_min(1e-30).sqrt() / (1 + square)
    return classes, logits + (votes * classes[:, None]).sum(-1)


def _step_by_einsum(votes: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
    total = torch.einsum("nk,nkd->nd", torch.softmax(logits, dim=-1), votes)
    length = total.norm(dim=-1, keepdim=True)
    classes = total * length / (1 + length**2)
    return classes, logits + torch.einsum("nkd,nd->nk", votes, classes)


def _step_by_loop(votes: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
    classes, after = [], []
    for v, b in zip(votes, logits, strict=True):
        weight = b.exp() / b.exp().sum()
        total = sum(w * x for w, x in zip(weight, v, strict=True))
        square = total @ total
        centre = total / (square + 1e-12).sqrt() * (square / (1 + square))
        classes.append(centre)
        after.append(b + v @ centre)
    return torch.stack(classes), torch.stack(after)


def _step_by_matmul(votes: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
    total = (logits.softmax(-1)[:, None] @ votes)[:, 0]
    square = (total * total).sum(1)[:, None]
    classes = square / (1 + square) * torch.nn.functional.normalize(total, dim=1, eps=1e-20)
    return classes, logits + (votes @ classes[..., None]).squeeze(2)


def _step(
    shares: Callable = lambda b: b.softmax(1),
    squash: Callable = _squash,
    update: Callable = lambda b, v, c: b + (v * c[:, None]).sum(-1),
) -> Callable:
    """Returns a variant of the step in which one part differs."""

    def step(votes: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
        classes = squash((shares(logits)[..., None] * votes).sum(1))
        return classes, update(logits, votes, classes)

    return step


def _routing_cases(generator: Generator) -> list[Case]:
    def case(says: str, n: int, k: int, d: int, dtype: torch.dtype = torch.float32) -> Case:
        votes = 0.7 * torch.randn(n, k, d, generator=generator, dtype=dtype)
        return Case(says, (votes, torch.randn(n, k, generator=generator, dtype=dtype)))

    paper = torch.tensor([[[3.0, 0.0], [3.0, 8.0]]]), torch.zeros(1, 2)
    return [
        Case("the example on paper", paper),
        case("3 classes, 4 shots, 5 numbers", 3, 4, 5),
        case("as many classes as shots", 3, 3, 2),
        case("one shot", 4, 1, 3),
        case("float64", 2, 3, 3, torch.float64),
    ]


def _survives_zero(answer: Callable, reference: Callable) -> str | None:
    votes = torch.tensor([[[1.0, -2.0], [-1.0, 2.0]]])
    classes, logits = answer(votes, torch.zeros(1, 2))
    fine = bool(torch.isfinite(classes).all() and torch.isfinite(logits).all()) and float(classes.abs().max()) < 1e-4
    return (
        None if fine else "two opposite votes cancel, and the class vector should be zero; it is not, or not a number"
    )


def _teaches_at_zero(answer: Callable, reference: Callable) -> str | None:
    votes = torch.tensor([[[1.0, 2.0], [-1.0, -2.0]]], requires_grad=True)
    logits = torch.zeros(1, 2, requires_grad=True)
    classes, after = answer(votes, logits)
    slopes = torch.autograd.grad(classes.sum() + after.square().sum(), (votes, logits), allow_unused=True)
    fine = all(slope is None or bool(torch.isfinite(slope).all()) for slope in slopes)
    return None if fine else "two opposite votes cancel, and the gradient is not a number there"


def _squash_by_root(x: Tensor) -> Tensor:
    square = x.square().sum(-1, keepdim=True)
    return torch.where(square > 0, square / (1 + square) * x / square.sqrt(), torch.zeros_like(x))


def _squash_enlarged(more: float) -> Callable:
    def squash(x: Tensor) -> Tensor:
        square = x.square().sum(-1, keepdim=True)
        return x * square / (1 + square) / (square.sqrt() + more)

    return squash


def _squash_offset(more: float) -> Callable:
    def squash(x: Tensor) -> Tensor:
        length = x.norm(dim=-1, keepdim=True)
        return length**2 / (1 + length**2) * x / (length + more)

    return squash


def _squash_root_of(more: float) -> Callable:
    def squash(x: Tensor) -> Tensor:
        square = x.square().sum(-1, keepdim=True)
        return x * (square + more).sqrt() / (1 + square)

    return squash


def _again(votes: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
    after = routing_step(votes, logits)[1]
    return routing_step(votes, after)[0], after


def _iterated(times: int) -> Callable:
    def answer(votes: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
        for _ in range(times - 1):
            logits = routing_step(votes, logits)[1]
        return routing_step(votes, logits)

    return answer


ROUTING = Exercise(
    id="20.2",
    title="One step of routing",
    reference=routing_step,
    cases=_routing_cases,
    properties=(
        Property("votes that cancel give the zero vector", _survives_zero),
        Property("votes that cancel have a finite gradient", _teaches_at_zero),
    ),
    gradient=(0, 1),
    right=(_step_by_einsum, _step_by_loop, _step_by_matmul, _step(squash=lambda x: _squash(x) * 1.0)),
    wrong=(
        Wrong(
            "softmax over the classes",
            _step(shares=lambda b: b.softmax(0)),
            "the shares of a *shot* sum to one over the classes; here every class has shots of its own",
            "Softmax over the K shots of a class: `dim=1`.",
        ),
        Wrong(
            "no softmax",
            _step(shares=lambda b: b),
            "the logits weigh the votes without a softmax, as they are or each through an exponential or a sigmoid",
            "Turn the logits into shares by a softmax over the shots.",
            also=(_step(shares=lambda b: b.exp()), _step(shares=lambda b: b.sigmoid())),
        ),
        Wrong(
            "other shares",
            _step(shares=lambda b: b / b.sum(1, keepdim=True)),
            "the shares are made of the logits in another way than by a softmax over the shots",
            "`shares = logits.softmax(1)`.",
            also=(
                _step(shares=lambda b: torch.nn.functional.one_hot(b.argmax(1), b.shape[1]).to(b.dtype)),
                _step(shares=lambda b: (-b).softmax(1)),
                lambda v, b: _step(shares=lambda x: (x / v.shape[-1] ** 0.5).softmax(1))(v, b),
                lambda v, b: _step(shares=lambda x: (x / v.shape[1] ** 0.5).softmax(1))(v, b),
            ),
        ),
        Wrong(
            "softmax over everything",
            _step(shares=lambda b: b.flatten().softmax(0).view_as(b)),
            "the shares of *all* classes together sum to one",
            "The shares of each class sum to one: softmax over dimension 1.",
        ),
        Wrong(
            "plain mean",
            _step(shares=lambda b: torch.full_like(b, 1 / b.shape[1])),
            "every shot gets the same share: the logits that came in are not used",
            "Weigh the votes by `logits.softmax(1)`.",
            also=(
                _step(shares=lambda b: torch.ones_like(b)),
                lambda v, b: routing_step(v, torch.zeros_like(b)),
            ),
        ),
        Wrong(
            "not squashed",
            _step(squash=lambda x: x),
            "the class vector is not squashed, or shortened by another function than equation (3)",
            "Shorten the sum to the length |s|²/(1 + |s|²).",
            also=(
                _step(squash=torch.tanh),
                _step(squash=torch.sigmoid),
                _step(squash=torch.relu),
                _step(squash=lambda x: x / (1 + x.square().sum(-1, keepdim=True)).sqrt()),
            ),
        ),
        Wrong(
            "unit length",
            _step(squash=lambda x: torch.nn.functional.normalize(x, dim=-1)),
            "the class vector is brought to length one; squash keeps short vectors short",
            "The new length is |s|²/(1 + |s|²), not 1.",
        ),
        Wrong(
            "squared length only",
            _step(squash=lambda x: x * x.square().sum(-1, keepdim=True) / (1 + x.square().sum(-1, keepdim=True))),
            "the sum is multiplied by |s|²/(1 + |s|²) without being divided by its length first",
            "The direction has length one: s/|s|.",
        ),
        Wrong(
            "length in place of its square",
            _step(squash=lambda x: x / (1 + x.norm(dim=-1, keepdim=True))),
            "a length stands where equation (3) has its square",
            "The new length is |s|²/(1 + |s|²).",
            also=(
                _step(squash=lambda x: x * x.norm(dim=-1, keepdim=True) / (1 + x.norm(dim=-1, keepdim=True))),
                _step(squash=lambda x: x / (1 + x.norm(dim=-1, keepdim=True) ** 2)),
            ),
        ),
        Wrong(
            "one length for all",
            _step(squash=lambda x: x * x.norm() / (1 + x.norm() ** 2)),
            "the length is measured over all classes, not over the numbers of one class vector",
            "Every class vector has a length of its own: `norm(dim=1, keepdim=True)`.",
            also=(_step(squash=lambda x: x * x.norm(dim=0, keepdim=True) / (1 + x.norm(dim=0, keepdim=True) ** 2)),),
        ),
        Wrong(
            "enlarged length",
            _step(squash=_squash_enlarged(0.1)),
            "a length or its square is enlarged by a constant, so much that values or gradients change",
            "Write s·|s|/(1 + |s|²) with `norm`: nothing is then divided by a length, and no constant is needed.",
            also=(
                *(_step(squash=_squash_enlarged(more)) for more in (1e-2, 1e-3)),
                *(_step(squash=_squash_offset(more)) for more in (0.1, 1e-2, 1e-3, 1e-4, 1e-5)),
                *(_step(squash=_squash_root_of(more)) for more in (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)),
            ),
        ),
        Wrong(
            "mean of the weighted votes",
            lambda v, b: (lambda c: (c, b + (v * c[:, None]).sum(-1)))(_squash((b.softmax(1)[..., None] * v).mean(1))),
            "the weighted votes are averaged; the shares sum to one already",
            "Add the weighted votes up.",
        ),
        Wrong(
            "squashed one by one",
            lambda v, b: (lambda c: (c, b + (v * c[:, None]).sum(-1)))(_squash(b.softmax(1)[..., None] * v).sum(1)),
            "every weighted vote is squashed, and then they are added up",
            "Add up first, squash the sum.",
        ),
        Wrong(
            "subtracted",
            _step(update=lambda b, v, c: b - (v * c[:, None]).sum(-1)),
            "the agreement is subtracted from the logits",
            "Votes that agree count *more*: add.",
        ),
        Wrong(
            "added to the shares",
            _step(update=lambda b, v, c: b.softmax(1) + (v * c[:, None]).sum(-1)),
            "the agreement is added to the shares instead of the logits",
            "New logits: the *logits* plus the products.",
        ),
        Wrong(
            "shares returned",
            _step(update=lambda b, v, c: b.softmax(1)),
            "the shares are returned in place of the new logits",
            "Return the logits plus the products of votes and class vector.",
        ),
        Wrong(
            "one step too many",
            _again,
            "more than one iteration is done: class vectors come from logits that have been updated already",
            "Return the class vectors of the shares that came in.",
            also=(_iterated(2), _iterated(3)),
        ),
        Wrong(
            "detached",
            _step(shares=lambda b: b.softmax(1).detach()),
            "the gradient is cut somewhere on its way: at the shares, the votes or the class vector",
            "No `detach` and no `no_grad`: gradients flow through both inputs.",
            also=(
                _step(update=lambda b, v, c: b + (v * c.detach()[:, None]).sum(-1)),
                _step(update=lambda b, v, c: b + (v.detach() * c[:, None]).sum(-1)),
            ),
        ),
        Wrong(
            "nan gradient at zero",
            _step(squash=_squash_by_root),
            "the values at zero are cured, but the gradient there still is nan: a root or a quotient at 0 lies on its way",
            "Write s·|s|/(1 + |s|²) with `norm`: nothing is then divided by a length.",
        ),
        Wrong(
            "logits replaced",
            _step(update=lambda b, v, c: (v * c[:, None]).sum(-1)),
            "the agreement replaces the logits instead of being added to them",
            "New logits: the old ones plus the products.",
        ),
        Wrong(
            "logits stay",
            _step(update=lambda b, v, c: b + 0.0),
            "the logits come back unchanged",
            "Add to each logit the product of its vote with the class vector.",
        ),
        Wrong(
            "agreement before squash",
            lambda v, b: (
                _squash((b.softmax(1)[..., None] * v).sum(1)),
                b + (v * (b.softmax(1)[..., None] * v).sum(1)[:, None]).sum(-1),
            ),
            "the agreement is measured with the sum as it was before squashing",
            "Multiply the votes by the squashed class vector.",
        ),
        Wrong(
            "agreement by cosine",
            _step(update=lambda b, v, c: b + torch.nn.functional.cosine_similarity(v, c[:, None], dim=-1)),
            "the agreement is a cosine, or the product with a vector of another length than the class vector's",
            "Use the plain inner product of vote and squashed class vector.",
            also=(
                _step(update=lambda b, v, c: b + (v * torch.nn.functional.normalize(c, dim=-1)[:, None]).sum(-1)),
                _step(update=lambda b, v, c: b + (torch.nn.functional.normalize(v, dim=-1) * c[:, None]).sum(-1)),
            ),
        ),
        Wrong(
            "agreement of shares",
            lambda v, b: _step(update=lambda x, w, c: x + x.softmax(1) * (w * c[:, None]).sum(-1))(v, b),
            "the agreement is multiplied by the share of the vote once more",
            "Multiply the votes themselves by the class vector, not the weighted ones.",
        ),
        Wrong(
            "agreement with all classes",
            _step(update=lambda b, v, c: b + (v @ c.T).sum(-1)),
            "each vote is multiplied by *all* class vectors, and the products are added up",
            "A vote meets the vector of its own class only: `(votes * classes[:, None]).sum(-1)`.",
            also=(_step(update=lambda b, v, c: b + (v @ c.T).mean(-1)),),
        ),
        Wrong(
            "distance",
            _step(update=lambda b, v, c: b - (v - c[:, None]).square().sum(-1)),
            "a distance between vote and class vector is taken for the agreement",
            "Use the inner product of vote and class vector.",
            also=(
                _step(update=lambda b, v, c: b - (v - c[:, None]).norm(dim=-1)),
                _step(update=lambda b, v, c: b + (v - c[:, None]).square().sum(-1)),
            ),
        ),
        Wrong(
            "multiplied",
            _step(update=lambda b, v, c: b * (v * c[:, None]).sum(-1)),
            "the logits are multiplied by the agreement",
            "New logits: the old ones *plus* the products.",
        ),
        Wrong(
            "squashed twice",
            lambda v, b: (lambda c: (c, b + (v * c[:, None]).sum(-1)))(
                _squash((b.softmax(1)[..., None] * _squash(v)).sum(1))
            ),
            "the votes are squashed, or brought to length one, before they are used",
            "The votes come ready: squash their weighted sum only.",
            also=(
                lambda v, b: routing_step(_squash(v), b),
                lambda v, b: routing_step(torch.nn.functional.normalize(v, dim=-1), b),
                _step(update=lambda b, v, c: b + (_squash(v) * c[:, None]).sum(-1)),
            ),
        ),
        Wrong(
            "exchanged",
            lambda v, b: routing_step(v, b)[::-1],
            "logits and class vectors come back in the other order",
            "Return the class vectors first, then the new logits.",
        ),
        Wrong(
            "mean product",
            _step(update=lambda b, v, c: b + (v * c[:, None]).mean(-1)),
            "the products of vote and class vector are averaged or scaled, where an inner product adds them",
            "Sum over the last axis.",
            also=(
                _step(update=lambda b, v, c: b + 0.5 * (v * c[:, None]).sum(-1)),
                _step(update=lambda b, v, c: b + (v * c[:, None]).sum(-1) / v.shape[-1] ** 0.5),
            ),
        ),
        Wrong(
            "logits as shares",
            _step(update=lambda b, v, c: (b + (v * c[:, None]).sum(-1)).softmax(1)),
            "the new logits have gone through a softmax already",
            "Return the logits; the next iteration takes their softmax.",
        ),
        Wrong(
            "nan at zero",
            _step(
                squash=lambda x: (
                    x
                    / x.norm(dim=-1, keepdim=True)
                    * x.norm(dim=-1, keepdim=True) ** 2
                    / (1 + x.norm(dim=-1, keepdim=True) ** 2)
                )
            ),
            "the zero vector is divided by its length, which gives nan",
            "Write s·|s|/(1 + |s|²) with `norm`: nothing is then divided by a length.",
        ),
    ),
    hints=(
        "Three lines: shares, a squashed sum, better logits.",
        "`shares = logits.softmax(1)`; the sum over shots is `(shares[..., None] * votes).sum(1)`.",
        "`n = total.norm(dim=1, keepdim=True)`; `classes = total * n / (1 + n**2)`; `logits + (votes * classes[:, None]).sum(2)`",
    ),
)

# ------------------------------------------------------------------------------------------- 20.3 pairs


def all_pairs(labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Every pair i < j once. labels [S] -> pairs int64 [P, 2], same bool [P], weights float32 [P]: both kinds weigh alike."""
    pairs = torch.combinations(torch.arange(len(labels)), 2)
    same = labels[pairs[:, 0]] == labels[pairs[:, 1]]
    size = torch.where(same, same.sum(), (~same).sum())
    kinds = same.unique().numel()
    return pairs, same, 1 / (kinds * size.float())


def _pairs_by_loop(labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    found = [(i, j) for i in range(len(labels)) for j in range(i + 1, len(labels))]
    same = [bool(labels[i] == labels[j]) for i, j in found]
    tally = Counter(same)
    return torch.tensor(found), torch.tensor(same), torch.tensor([1 / (len(tally) * tally[s]) for s in same])


def _pairs_by_triangle(labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    i, j = torch.triu_indices(len(labels), len(labels), 1)
    same = (labels[:, None] == labels)[i, j]
    positive, negative = same.sum().item(), (~same).sum().item()
    share = 1.0 if positive == 0 or negative == 0 else 0.5
    weights = torch.zeros(len(i))
    weights[same], weights[~same] = share / max(positive, 1), share / max(negative, 1)
    return torch.stack([i, j], dim=1), same, weights


def _pairs_by_itertools(labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    values = labels.tolist()
    found = list(itertools.combinations(range(len(values)), 2))
    same = torch.tensor([values[a] == values[b] for a, b in found])
    raw = torch.stack([same.float(), 1 - same.float()])
    raw = raw / raw.sum(1, keepdim=True).clamp_min(1)
    weights = raw.sum(0)
    return torch.tensor(found, dtype=torch.long), same, weights / weights.sum()


def _pairs_by_mask(labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    pairs = torch.ones(len(labels), len(labels)).triu(1).nonzero()
    same = labels[pairs].diff(dim=1)[:, 0] == 0
    n = torch.bincount(same.long(), minlength=2)
    return pairs, same, (1.0 / n[same.long()]) / int((n > 0).sum())


def _with_weights(weigh: Callable[[Tensor], Tensor]) -> Callable:
    def answer(labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        pairs, same, _ = all_pairs(labels)
        return pairs, same, weigh(same)

    return answer


def _with_pairs(make: Callable[[int], Tensor]) -> Callable:
    def answer(labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        pairs = make(len(labels))
        same = labels[pairs[:, 0]] == labels[pairs[:, 1]]
        size = torch.where(same, same.sum(), (~same).sum()).float()
        return pairs, same, 1 / (same.unique().numel() * size)

    return answer


def _evenly(make: Callable[[int], Tensor]) -> Callable:
    """Returns an answer that makes such pairs and gives all of them one weight."""

    def answer(labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        pairs = make(len(labels))
        return pairs, labels[pairs[:, 0]] == labels[pairs[:, 1]], torch.full((len(pairs),), 1 / len(pairs))

    return answer


def _half_each(same: Tensor) -> Tensor:
    return 0.5 / torch.where(same, same.sum(), (~same).sum()).float()


def _by_odds(same: Tensor) -> Tensor:
    """A pair of one class weighs as much as all others for each pair of one class; nan where no others are there."""
    weights = torch.where(same, (~same).sum() / same.sum().clamp_min(1), torch.tensor(1.0))
    return weights / weights.sum()


def _last_forgotten(labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return all_pairs(labels[:-1])


def _sorted_weights(same: Tensor) -> Tensor:
    order = (~same).int().argsort(stable=True)
    return (1 / (same.unique().numel() * torch.where(same, same.sum(), (~same).sum()).float()))[order]


def _half_by(size: Callable[[Tensor], Tensor]) -> Callable:
    return _with_weights(lambda same: 0.5 / size(same).float())


def _by_class(labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The pairs of each class weigh alike in sum, whatever their number."""
    pairs, same, _ = all_pairs(labels)
    first = labels[pairs[:, 0]]
    inside = [same & (first == c) for c in first[same].unique()]
    weights = torch.where(same, 0.0, 0.5 / (~same).sum().clamp_min(1))
    for pair in inside:
        weights[pair] = 0.5 / len(inside) / pair.sum()
    return pairs, same, weights / weights.sum()


def _equal_shots(labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    pairs, same, _ = all_pairs(labels)
    ways = len(labels.unique())
    shots = len(labels) // ways
    alike = ways * shots * (shots - 1) // 2
    other = len(same) - alike
    share = 0.5 if alike and other else 1.0
    return pairs, same, torch.where(same, share / max(alike, 1), share / max(other, 1))


def _ordered(labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    pairs, same, weights = all_pairs(labels)
    order = (~same).int().argsort(stable=True)
    return pairs[order], same[order], weights[order]


def _at_most_zero(labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    pairs = all_pairs(labels)[0]
    same = labels[pairs[:, 0]] - labels[pairs[:, 1]] < 1
    size = torch.where(same, same.sum(), (~same).sum()).float()
    return pairs, same, 1 / (same.unique().numel() * size)


def _pair_cases(generator: Generator) -> list[Case]:
    return [
        Case("two classes with two sentences each", (torch.tensor([0, 0, 1, 1]),)),
        Case("three classes in mixed order", (torch.tensor([2, 0, 1, 0, 2, 1]),)),
        Case("unequal shots", (torch.tensor([0, 0, 0, 1]),)),
        Case("five classes, one sentence each: no pair of one class", (torch.arange(5),)),
        Case("one class only: no pair of two classes", (torch.tensor([3, 3, 3]),)),
        Case("five classes, five sentences each", (torch.arange(5).repeat(5),)),
        Case("three sentences of one class and two of another", (torch.tensor([0, 0, 0, 1, 1]),)),
    ]


PAIRS = Exercise(
    id="20.3",
    title="Pairs without copies",
    reference=all_pairs,
    cases=_pair_cases,
    right=(_pairs_by_loop, _pairs_by_triangle, _pairs_by_itertools, _pairs_by_mask),
    wrong=(
        Wrong(
            "both orders",
            _with_pairs(lambda n: (~torch.eye(n, dtype=torch.bool)).nonzero()),
            "every pair occurs twice, as (i, j) and as (j, i)",
            "Keep the pairs with i < j.",
            also=(_with_pairs(lambda n: torch.cat([torch.combinations(torch.arange(n), 2)] * 2)),),
        ),
        Wrong(
            "with itself",
            _with_pairs(lambda n: torch.combinations(torch.arange(n), 2, with_replacement=True)),
            "a sentence is paired with itself",
            "i < j leaves the pair (i, i) out.",
            also=(
                _with_pairs(lambda n: torch.cartesian_prod(torch.arange(n), torch.arange(n))),
                _evenly(lambda n: torch.combinations(torch.arange(n), 2, with_replacement=True)),
                _evenly(lambda n: torch.cartesian_prod(torch.arange(n), torch.arange(n))),
            ),
        ),
        Wrong(
            "neighbours",
            _with_pairs(lambda n: torch.stack([torch.arange(n - 1), torch.arange(1, n)], 1)),
            "only some of the pairs are listed, such as neighbours or those of the first sentence",
            "There are S(S - 1)/2 pairs: two loops, or `torch.combinations`.",
            also=(_evenly(lambda n: torch.stack([torch.zeros(n - 1, dtype=torch.long), torch.arange(1, n)], 1)),),
        ),
        Wrong(
            "all weigh the same",
            _with_weights(lambda same: torch.full((len(same),), 1 / len(same))),
            "all pairs weigh the same, so that the many pairs of different classes drown the few of one class",
            "Each kind weighs one half in sum: divide by the number of pairs of that kind.",
            also=(_with_weights(lambda same: torch.ones(len(same))),),
        ),
        Wrong(
            "one half, though a kind is missing",
            _with_weights(_half_each),
            "each kind gets one half, also where the other kind is missing: the weights then sum to 1/2",
            "Divide by the number of kinds that are there.",
        ),
        Wrong(
            "no answer where a kind is missing",
            _with_weights(
                lambda same: 0.5 * same.float() / same.float().sum() + 0.5 * (~same).float() / (~same).float().sum()
            ),
            "weights fail where only one kind is there: nan, zero or a division by zero",
            "If only one kind is there, it weighs 1 in sum.",
            also=(
                _with_weights(lambda same: _half_each(same) * (same.unique().numel() == 2)),
                _with_weights(_by_odds),
                _with_weights(
                    lambda same: torch.tensor(
                        [(0.5 / int(same.sum()), 0.5 / int((~same).sum()))[0 if one else 1] for one in same.tolist()]
                    )
                ),
            ),
        ),
        Wrong(
            "weights of float64",
            lambda labels: (lambda p, s, w: (p, s, w.double()))(*all_pairs(labels)),
            "the weights are float64, and float32 was asked for",
            "Turn the weights into float32 by `.float()`.",
        ),
        Wrong(
            "mean of one",
            lambda labels: (lambda p, s, w: (p, s, w * len(s)))(*all_pairs(labels)),
            "the weights are one on average, not in sum",
            "Divide by the number of pairs: all weights together sum to one.",
            also=(_with_weights(lambda same: len(same) * _half_each(same)),),
        ),
        Wrong(
            "another sum",
            _with_weights(lambda same: torch.where(same, 1 - same.float().mean(), same.float().mean())),
            "the two kinds weigh alike, but all weights together do not sum to one",
            "Divide the weights by their sum.",
            also=(
                _with_weights(lambda same: len(same) / torch.where(same, same.sum(), (~same).sum()).float()),
                _with_weights(
                    lambda same: torch.where(same, (~same).sum() / same.sum().clamp_min(1), torch.tensor(1.0))
                ),
                _with_weights(lambda same: torch.where(same, (~same).sum(), same.sum()).float()),
            ),
        ),
        Wrong(
            "weights in another order",
            _with_weights(_sorted_weights),
            "the weights are listed kind after kind, and do not stand beside their pairs",
            "Entry p of `weights` belongs to row p of `pairs`: use `torch.where(same, ..., ...)`.",
        ),
        Wrong(
            "one sentence forgotten",
            _last_forgotten,
            "the last sentence is in no pair",
            "j runs to S - 1: `range(i + 1, S)`.",
        ),
        Wrong(
            "one kind weighs nothing",
            _with_weights(lambda same: same.float() / same.sum().clamp_min(1)),
            "one of the two kinds gets no weight, although both are there",
            "Both kinds weigh 1/2 in sum.",
            also=(_with_weights(lambda same: (~same).float() / (~same).sum().clamp_min(1)),),
        ),
        Wrong(
            "positions compared",
            lambda labels: (lambda p, s, w: (p, p[:, 0] == p[:, 1], w))(*all_pairs(labels)),
            "`same` compares positions, not labels, so it is never true",
            "`labels[pairs[:, 0]] == labels[pairs[:, 1]]`.",
        ),
        Wrong(
            "frequent kind heavier",
            _with_weights(
                lambda same: (lambda w: w / w.sum())(torch.where(same, same.float().mean(), 1 - same.float().mean()))
            ),
            "the kind that has more pairs gets the heavier ones: the imbalance grows",
            "Divide by the number of pairs of the kind.",
            also=(_with_weights(lambda same: torch.where(same, same.float().mean(), 1 - same.float().mean())),),
        ),
        Wrong(
            "classes weigh alike",
            _by_class,
            "the pairs of each *class* weigh the same in sum; all pairs of one kind should weigh the same",
            "Divide by the number of all pairs of one class, whichever class it is.",
        ),
        Wrong(
            "equal shots taken for granted",
            _equal_shots,
            "the pairs are counted by a formula that holds for equal shots only",
            "Count them: `same.sum()`.",
        ),
        Wrong(
            "each kind sums to one",
            _with_weights(lambda same: 1 / torch.where(same, same.sum(), (~same).sum()).float()),
            "each kind sums to one, so all weights sum to two",
            "Both kinds together sum to one.",
            also=(lambda labels: (lambda p, s, w: (p, s, 2 * w))(*all_pairs(labels)),),
        ),
        Wrong(
            "kinds swapped",
            _with_weights(
                lambda same: (
                    1 / (same.unique().numel() * torch.where(same, (~same).sum(), same.sum()).clamp_min(1).float())
                )
            ),
            "the weights of the two kinds are exchanged",
            "A pair of one class is divided by the number of such pairs.",
            also=(
                _half_by(lambda same: torch.where(same, (~same).sum(), same.sum())),
                _half_by(lambda same: torch.where(same, (~same).sum(), same.sum()).clamp_min(1)),
                _with_weights(
                    lambda same: (
                        1
                        / (
                            same.unique().numel()
                            * torch.where(same, (~same).sum() or same.sum(), same.sum() or (~same).sum()).float()
                        )
                    )
                ),
            ),
        ),
        Wrong(
            "different instead of same",
            lambda labels: (lambda p, s, w: (p, ~s, w))(*all_pairs(labels)),
            "`same` says that the labels *differ*",
            "`labels[i] == labels[j]`.",
            also=(lambda labels: (lambda p, s, w: (p, (~s).float(), w))(*all_pairs(labels)),),
        ),
        Wrong(
            "one half for every pair",
            _with_weights(lambda same: torch.full((len(same),), 0.5)),
            "every pair weighs one half; it is the *sum* over a kind that should",
            "Divide by the number of pairs of the kind.",
        ),
        Wrong(
            "the larger first",
            lambda labels: (lambda p, s, w: (p.flip(1), s, w))(*all_pairs(labels)),
            "the larger position stands first in every pair",
            "Write i < j.",
            also=(_with_pairs(lambda n: torch.tril_indices(n, n, -1).T),),
        ),
        Wrong(
            "another order",
            _with_pairs(lambda n: torch.tril_indices(n, n, -1).flip(0).T),
            "the right pairs come in another order",
            "Order by the first position, then by the second: (0, 1), (0, 2), ..., (1, 2), ...",
            also=(_ordered,),
        ),
        Wrong(
            "labels instead of positions",
            lambda labels: (lambda p, s, w: (labels[p], s, w))(*all_pairs(labels)),
            "`pairs` holds the labels of the sentences, not their positions",
            "Return the positions i and j themselves.",
        ),
        Wrong(
            "smaller label passes",
            _at_most_zero,
            "`same` is also true where the first label is smaller than the second",
            "Compare by `==`.",
        ),
        Wrong(
            "positives only",
            lambda labels: (lambda p, s, w: (p[s], s[s], w[s]))(*all_pairs(labels)),
            "only pairs of one kind are returned: pulling together needs the one, pushing apart the other",
            "Return the pairs of one class and those of different classes.",
            also=(
                lambda labels: (
                    lambda p, s, w: (p[~s], s[~s], torch.full((int((~s).sum()),), 1 / max(1, int((~s).sum()))))
                )(*all_pairs(labels)),
                lambda labels: (lambda p, s, w: (p[s], s[s], torch.full((int(s.sum()),), 1 / max(1, int(s.sum())))))(
                    *all_pairs(labels)
                ),
            ),
        ),
        Wrong(
            "as numbers",
            lambda labels: (lambda p, s, w: (p, s.float(), w))(*all_pairs(labels)),
            "`same` holds numbers, and booleans were asked for",
            "A comparison gives booleans: `labels[i] == labels[j]`.",
            also=(lambda labels: (lambda p, s, w: (p, s.long(), w))(*all_pairs(labels)),),
        ),
    ),
    hints=(
        "25 sentences make 300 pairs. Which 300?",
        "`torch.combinations(torch.arange(S), 2)` lists the pairs; count each kind, and divide.",
        "`size = torch.where(same, same.sum(), (~same).sum())`; weights: `1 / (same.unique().numel() * size)`",
    ),
)

# ------------------------------------------------------------------------------------------- 20.4 the spread of draws


def spread(accuracies: Tensor, t: float) -> Tensor:
    """Mean, half width of its 95 % interval, lowest and highest. accuracies float64 [R] -> float64 [4]."""
    half = t * accuracies.std() / len(accuracies) ** 0.5
    return torch.stack([accuracies.mean(), half, accuracies.min(), accuracies.max()])


def _spread_by_hand(accuracies: Tensor, t: float) -> Tensor:
    values = accuracies.tolist()
    count = len(values)
    mean = sum(values) / count
    deviation = (sum((v - mean) ** 2 for v in values) / (count - 1)) ** 0.5
    return torch.tensor([mean, t * deviation / count**0.5, min(values), max(values)], dtype=torch.float64)


def _spread_by_sorting(accuracies: Tensor, t: float) -> Tensor:
    ordered = accuracies.sort().values
    half = t * (accuracies.var(correction=1) / accuracies.numel()).sqrt()
    return torch.cat([accuracies.mean()[None], half[None], ordered[[0, -1]]])


def _spread_by_numpy(accuracies: Tensor, t: float) -> Tensor:
    values = accuracies.numpy()
    return torch.tensor([values.mean(), t * values.std(ddof=1) / len(values) ** 0.5, values.min(), values.max()])


def _spread_by_aminmax(accuracies: Tensor, t: float) -> Tensor:
    low, high = accuracies.aminmax()
    centred = accuracies - accuracies.mean()
    half = t * (centred @ centred / (len(centred) - 1) / len(centred)).sqrt()
    return torch.stack((accuracies.mean(), half, low, high))


def _spread_with(half: Callable[[Tensor, float], Tensor]) -> Callable:
    return lambda a, t: torch.stack([a.mean(), half(a, t), a.min(), a.max()])


def _spread_cases(generator: Generator) -> list[Case]:
    def drawn(count: int) -> Tensor:
        return 0.3 + 0.4 * torch.rand(count, generator=generator, dtype=torch.float64)

    return [
        Case("four draws on paper", (torch.tensor([0.4, 0.6, 0.5, 0.5], dtype=torch.float64), 3.18)),
        Case("thirty draws", (drawn(30), 2.05)),
        Case("two draws", (drawn(2), 12.7)),
        Case("draws that agree", (torch.full((5,), 0.25, dtype=torch.float64), 2.78)),
    ]


SPREAD = Exercise(
    id="20.4",
    title="The spread of draws",
    reference=spread,
    cases=_spread_cases,
    right=(_spread_by_hand, _spread_by_sorting, _spread_by_numpy, _spread_by_aminmax),
    wrong=(
        Wrong(
            "spread of draws",
            _spread_with(lambda a, t: t * a.std()),
            "the deviation is not divided by the root of the number of draws: this says where a *single* draw lies, not the mean",
            "The mean of R draws is steadier than one: divide by the root of R.",
        ),
        Wrong(
            "no t",
            _spread_with(lambda a, t: a.std() / len(a) ** 0.5),
            "the factor t is missing",
            "Multiply by `t`.",
            also=(_spread_with(lambda a, t: a.std()),),
        ),
        Wrong(
            "divided by R",
            _spread_with(lambda a, t: t * a.std() / len(a)),
            "the deviation is divided by the number of draws, or one less, not by the root of R",
            "Divide by the root of R.",
            also=(_spread_with(lambda a, t: t * a.std() / (len(a) - 1)),),
        ),
        Wrong(
            "biased deviation",
            _spread_with(lambda a, t: t * a.std(correction=0) / len(a) ** 0.5),
            "the deviation has R in its denominator, not R - 1",
            "`accuracies.std()` divides by R - 1.",
            also=(_spread_with(lambda a, t: t * a.std(correction=0) / (len(a) + 1) ** 0.5),),
        ),
        Wrong(
            "root of R - 1",
            _spread_with(lambda a, t: t * a.std() / (len(a) - 1) ** 0.5),
            "the deviation is divided by the root of R - 1: that number stands inside the deviation already",
            "Divide by the root of R.",
        ),
        Wrong(
            "quantiles",
            lambda a, t: torch.stack([a.mean(), t * a.std() / len(a) ** 0.5, a.quantile(0.025), a.quantile(0.975)]),
            "the range leaves out the outermost draws",
            "The last two are the smallest and the largest accuracy.",
            also=(
                lambda a, t: torch.stack([a.mean(), t * a.std() / len(a) ** 0.5, a.quantile(0.05), a.quantile(0.95)]),
                lambda a, t: torch.stack([a.mean(), t * a.std() / len(a) ** 0.5, a.quantile(0.25), a.quantile(0.75)]),
            ),
        ),
        Wrong(
            "variance",
            _spread_with(lambda a, t: t * a.var() / len(a) ** 0.5),
            "the variance is taken for the deviation",
            "Take the root: `std`.",
            also=(_spread_with(lambda a, t: t * a.var() / len(a)),),
        ),
        Wrong(
            "1.96",
            _spread_with(lambda a, t: 1.96 * a.std() / len(a) ** 0.5),
            "1.96 is used in place of the t that is given",
            "Few draws need a larger factor; it comes as `t`.",
            also=(
                _spread_with(lambda a, t: 2 * a.std() / len(a) ** 0.5),
                _spread_with(lambda a, t: 1.96 * a.std()),
                _spread_with(lambda a, t: 1.96 * a.std(correction=0) / len(a) ** 0.5),
            ),
        ),
        Wrong(
            "whole width",
            _spread_with(lambda a, t: 2 * t * a.std() / len(a) ** 0.5),
            "the whole width of the interval is returned",
            "Half the width: what stands behind ±.",
        ),
        Wrong(
            "interval instead of range",
            lambda a, t: torch.stack([a.mean(), s := t * a.std() / len(a) ** 0.5, a.mean() - s, a.mean() + s]),
            "mean minus and plus something, the ends of an interval, are returned as lowest and highest draw",
            "The last two are the smallest and the largest accuracy.",
            also=(
                lambda a, t: torch.stack(
                    [a.mean(), s := t * a.std() / len(a) ** 0.5, (a.mean() - s).clamp(0, 1), (a.mean() + s).clamp(0, 1)]
                ),
                lambda a, t: torch.stack(
                    [a.mean(), t * a.std() / len(a) ** 0.5, a.mean() - a.std(), a.mean() + a.std()]
                ),
            ),
        ),
        Wrong(
            "median",
            lambda a, t: torch.stack([a.median(), t * a.std() / len(a) ** 0.5, a.min(), a.max()]),
            "a median, or the middle between lowest and highest, is returned as the mean",
            "`accuracies.mean()`.",
            also=(
                lambda a, t: torch.stack([a.sort().values[len(a) // 2], t * a.std() / len(a) ** 0.5, a.min(), a.max()]),
                lambda a, t: torch.stack([a.quantile(0.5), t * a.std() / len(a) ** 0.5, a.min(), a.max()]),
                lambda a, t: torch.stack([(a.min() + a.max()) / 2, t * a.std() / len(a) ** 0.5, a.min(), a.max()]),
            ),
        ),
        Wrong(
            "multiplied by the root",
            _spread_with(lambda a, t: t * a.std() * len(a) ** 0.5),
            "the deviation is multiplied by the root of R",
            "Divide by it: more draws make the mean steadier.",
        ),
        Wrong(
            "half the range",
            _spread_with(lambda a, t: (a.max() - a.min()) / 2),
            "half the distance between two draws, such as lowest and highest, is returned as half width",
            "The half width is `t` times the deviation, divided by the root of R.",
            also=(_spread_with(lambda a, t: (a.quantile(0.975) - a.quantile(0.025)) / 2),),
        ),
        Wrong(
            "halved",
            _spread_with(lambda a, t: t * a.std() / len(a) ** 0.5 / 2),
            "the half width is halved once more",
            "t times the deviation of the mean is what stands behind ±: half the interval already.",
        ),
        Wrong(
            "t under the root",
            _spread_with(lambda a, t: (t * a.var() / len(a)).sqrt()),
            "t stands under the root, too",
            "Take the root of the variance over R first, then multiply by t.",
            also=(_spread_with(lambda a, t: (t * a.std() / len(a)) ** 0.5),),
        ),
        Wrong(
            "squares not averaged",
            _spread_with(lambda a, t: t * (a - a.mean()).norm() / len(a) ** 0.5),
            "the squared distances are summed and never divided by R - 1",
            "Take `accuracies.std()`.",
            also=(_spread_with(lambda a, t: t * (a - a.mean()).norm()),),
        ),
        Wrong(
            "coin tosses",
            _spread_with(lambda a, t: t * (a.mean() * (1 - a.mean()) / len(a)).sqrt()),
            "the deviation is that of R coin tosses, p(1 - p), and not that of the accuracies",
            "Take `accuracies.std()`.",
        ),
        Wrong(
            "distances from the mean",
            lambda a, t: torch.stack([a.mean(), t * a.std() / len(a) ** 0.5, a.mean() - a.min(), a.max() - a.mean()]),
            "the distances of lowest and highest draw from the mean are returned",
            "Return the two accuracies themselves.",
        ),
        Wrong(
            "rounded",
            lambda a, t: (spread(a, t) * 100).round() / 100,
            "the numbers are rounded",
            "Return them as they are.",
            also=(lambda a, t: (spread(a, t) * 1000).round() / 1000, lambda a, t: (spread(a, t) * 1e4).round() / 1e4),
        ),
        Wrong(
            "mean distance",
            _spread_with(lambda a, t: t * (a - a.mean()).abs().mean() / len(a) ** 0.5),
            "the mean distance from the mean is taken for the deviation",
            "Take `accuracies.std()`.",
        ),
        Wrong(
            "first and last",
            lambda a, t: torch.stack([a.mean(), t * a.std() / len(a) ** 0.5, a[0], a[-1]]),
            "the first and the last draw are returned as lowest and highest",
            "The draws are not sorted: take `min()` and `max()`.",
        ),
        Wrong(
            "positions",
            lambda a, t: torch.stack(
                [a.mean(), t * a.std() / len(a) ** 0.5, a.argmin().to(a.dtype), a.argmax().to(a.dtype)]
            ),
            "the *positions* of lowest and highest draw are returned",
            "Take `min()` and `max()`, not `argmin()` and `argmax()`.",
        ),
        Wrong(
            "per cent",
            lambda a, t: 100 * spread(a, t),
            "the four numbers are multiplied by 100",
            "Return shares, as they come.",
        ),
        Wrong(
            "exchanged",
            lambda a, t: spread(a, t)[[0, 1, 3, 2]],
            "the four numbers come in another order",
            "Mean, half width, lowest, highest.",
            also=tuple(
                lambda a, t, o=order: spread(a, t)[list(o)]
                for order in ((1, 0, 2, 3), (2, 3, 0, 1), (0, 2, 3, 1), (2, 0, 3, 1), (0, 2, 1, 3), (2, 0, 1, 3))
            ),
        ),
    ),
    hints=(
        "Which of the two shrinks with more draws: the spread, or the interval of the mean?",
        "Half width: t times the deviation, divided by the root of the number of draws.",
        "`torch.stack([a.mean(), t * a.std() / len(a) ** 0.5, a.min(), a.max()])`",
    ),
)

# ------------------------------------------------------------------------------------------- 20.5 repeated pairs


def repeats_pairs(make_pairs: Callable[[Tensor], Tensor], labels: Tensor) -> bool:
    """Returns True where a pair of sentences occurs twice, in either order, or a sentence is paired with itself."""
    pairs = make_pairs(labels).sort(dim=1).values
    alone = bool((pairs[:, 0] == pairs[:, 1]).any())
    return alone or len(pairs.unique(dim=0)) < len(pairs)


def _repeats_by_sets(make_pairs: Callable, labels: Tensor) -> bool:
    found = [frozenset(pair) for pair in make_pairs(labels).tolist()]
    return len(set(found)) < len(found) or any(len(pair) == 1 for pair in found)


def _repeats_by_matrix(make_pairs: Callable, labels: Tensor) -> bool:
    table = torch.zeros(len(labels), len(labels))
    for i, j in make_pairs(labels).tolist():
        table[i, j] += 1
    return bool((table + table.T > 1).any())


def _repeats_by_number(make_pairs: Callable, labels: Tensor) -> bool:
    first, second = make_pairs(labels).T
    low, high = torch.minimum(first, second), torch.maximum(first, second)
    key = low * len(labels) + high
    return bool((key.bincount() > 1).any() or (low == high).any())


def _repeats_by_counter(make_pairs: Callable, labels: Tensor) -> bool:
    tally: Counter = Counter()
    for i, j in make_pairs(labels).tolist():
        if i == j:
            return True
        tally[min(i, j), max(i, j)] += 1
    return max(tally.values(), default=0) > 1


def _all(labels: Tensor) -> Tensor:
    return torch.combinations(torch.arange(len(labels)), 2)


def _some(labels: Tensor) -> Tensor:
    found = _all(labels)
    return found[torch.randperm(len(found), generator=torch.Generator().manual_seed(1))[: len(found) // 2]]


def _turned(labels: Tensor) -> Tensor:
    """Every pair once, some of them written the other way round."""
    found = _all(labels)
    return torch.where(torch.arange(len(found))[:, None] % 2 == 0, found, found.flip(1))


def _positives(labels: Tensor) -> Tensor:
    found = _all(labels)
    return found[labels[found[:, 0]] == labels[found[:, 1]]]


def _drawn_again_and_again(labels: Tensor) -> Tensor:
    """For each sentence and each round one partner of its class and one of another, drawn with replacement."""
    generator, found = torch.Generator().manual_seed(0), []
    for _ in range(4):
        for i in range(len(labels)):
            for same in (True, False):
                others = [j for j in range(len(labels)) if j != i and bool(labels[j] == labels[i]) == same]
                if others:
                    found.append([i, others[int(torch.randint(len(others), (1,), generator=generator))]])
    return torch.tensor(found)


def _with_more(*more: list[int], drop: int = 0) -> Callable:
    return lambda labels: torch.cat(
        [_all(labels)[drop:], torch.tensor([[i % len(labels), j % len(labels)] for i, j in more])]
    )


def _doubled(kind: bool) -> Callable:
    def make(labels: Tensor) -> Tensor:
        found = _all(labels)
        same = labels[found[:, 0]] == labels[found[:, 1]]
        return torch.cat([found, found[same == kind]])

    return make


def _each_once(labels: Tensor) -> Tensor:
    """Neighbours, so that no sentence is in two pairs."""
    return torch.arange(len(labels) // 2 * 2).view(-1, 2)


def _faulty_if(unequal: bool) -> Callable:
    """All pairs, twice where shots are unequal (or equal), and once elsewhere."""
    return lambda labels: torch.cat([_all(labels)] * (1 + ((len(labels.bincount().unique()) > 1) == unequal)))


def _repeat_cases(generator: Generator) -> list[Case]:
    labels, other = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1]), torch.tensor([1, 1, 0, 0])
    return [
        Case("a right one: all pairs once", (_all, labels)),
        Case("a right one: half of the pairs, in random order", (_some, labels)),
        Case("a right one that writes some pairs the other way round", (_turned, labels)),
        Case("a right one: pairs of one class only", (_positives, labels)),
        Case("partners drawn anew in every round", (_drawn_again_and_again, labels)),
        Case("all pairs twice", (lambda y: torch.cat([_all(y), _all(y)]), labels)),
        Case("all pairs in both orders", (lambda y: torch.cat([_all(y), _all(y).flip(1)]), labels)),
        Case("one pair twice, far apart", (_with_more([0, 1]), labels)),
        Case("one pair twice, in the other order", (_with_more([7, 2]), labels)),
        Case("one pair missing and another twice, so that the number is right", (_with_more([3, 5], drop=1), labels)),
        Case("the same, in the other order", (_with_more([5, 3], drop=1), labels)),
        Case("one sentence with itself", (_with_more([4, 4]), labels)),
        Case("the last sentence with itself, in place of another pair", (_with_more([7, 7], drop=1), labels)),
        Case("pairs of one class twice", (_doubled(True), labels)),
        Case("pairs of different classes twice", (_doubled(False), labels)),
        Case("neighbours twice", (lambda y: _all(y).repeat_interleave(2, 0), other)),
        Case("a right one, for four sentences", (_all, other)),
        Case("a right one: all pairs of three sentences", (lambda y: torch.tensor([[1, 2], [2, 3], [1, 3]]), other)),
        Case("a right one in which no sentence comes twice", (_each_once, torch.tensor([0, 1, 0, 1, 2, 2]))),
        Case("a right one with (0, 3) and (1, 2)", (lambda y: torch.tensor([[0, 3], [1, 2]]), other)),
        Case(
            "a right one with large numbers", (lambda y: torch.tensor([[0, 12], [1, 2], [2, 11]]), torch.arange(25) % 5)
        ),
        Case(
            "a right one with larger numbers",
            (lambda y: torch.tensor([[0, 150], [1, 50], [1, 112], [11, 12]]), torch.arange(160) % 4),
        ),
        Case("all pairs twice where shots are unequal, and once elsewhere", (_faulty_if(True), labels)),
        Case("all pairs twice where shots are equal, and once elsewhere", (_faulty_if(False), other)),
        Case(
            "a right one with more pairs than sentences",
            (lambda y: torch.tensor([[0, 1], [0, 2], [1, 2], [1, 3], [2, 3]]), other),
        ),
        Case("three pairs, one of them twice", (lambda y: torch.tensor([[2, 5], [0, 1], [2, 5]]), labels)),
        Case("two pairs, one of a sentence with itself", (lambda y: torch.tensor([[6, 1], [3, 3]]), labels)),
    ]


def _looks(same: Callable[[Tensor, Tensor], bool]) -> Callable:
    """Returns a detector that looks at the pairs and the labels in one way only."""
    return lambda make_pairs, labels: bool(same(make_pairs(labels), labels))


def _alone(pairs: Tensor) -> bool:
    return bool((pairs[:, 0] == pairs[:, 1]).any())


def _copies(pairs: Tensor) -> bool:
    return len(pairs.sort(1).values.unique(dim=0)) < len(pairs)


def _by_key(pairs: Tensor, factor: int) -> bool:
    key = pairs.amin(1) * factor + pairs.amax(1)
    return len(key.unique()) < len(key) or _alone(pairs)


REPEATS = Exercise(
    id="20.5",
    title="Bug hunt: is every pair new?",
    reference=repeats_pairs,
    cases=_repeat_cases,
    right=(_repeats_by_sets, _repeats_by_matrix, _repeats_by_number, _repeats_by_counter),
    wrong=(
        Wrong(
            "the order counts",
            _looks(lambda p, y: len(p.unique(dim=0)) < len(p) or (p[:, 0] == p[:, 1]).any()),
            "(i, j) and (j, i) pass for two pairs",
            "Sort each pair first, or take sets.",
            also=(_looks(lambda p, y: len(p.unique(dim=0)) < len(p)),),
        ),
        Wrong(
            "only the number",
            _looks(lambda p, y: len(p) > len(y) * (len(y) - 1) // 2),
            "only the number of pairs is looked at: one missing and one doubled pair leave it right",
            "Compare the pairs themselves, not their number.",
            also=(
                _looks(lambda p, y: len(p) != len(y) * (len(y) - 1) // 2),
                _looks(lambda p, y: len(p) > len(y) * (len(y) - 1) // 2 or _alone(p)),
            ),
        ),
        Wrong(
            "only itself",
            _looks(lambda p, y: (p[:, 0] == p[:, 1]).any()),
            "only sentences paired with themselves are found, no pair that comes twice",
            "Count how often each pair occurs, too.",
        ),
        Wrong(
            "itself is forgotten",
            _looks(lambda p, y: len(p.sort(dim=1).values.unique(dim=0)) < len(p)),
            "a sentence that is paired with itself once goes unnoticed",
            "Look for `pairs[:, 0] == pairs[:, 1]`, too.",
        ),
        Wrong(
            "neighbours only",
            _looks(
                lambda p, y: (p.sort(1).values[1:] == p.sort(1).values[:-1]).all(1).any() or (p[:, 0] == p[:, 1]).any()
            ),
            "only pairs that follow each other are compared",
            "A copy may stand far away: sort all rows, or use `unique`.",
            also=(_looks(lambda p, y: (p[1:] == p[:-1]).all(1).any()),),
        ),
        Wrong(
            "half of them is wrong",
            _looks(
                lambda p, y: (
                    len(p) < len(y) * (len(y) - 1) // 2
                    or len(p.sort(1).values.unique(dim=0)) < len(p)
                    or (p[:, 0] == p[:, 1]).any()
                )
            ),
            "missing pairs ring the alarm, although nobody promised all pairs",
            "A part of the pairs is fine as long as none comes twice.",
            also=(
                _looks(
                    lambda p, y: {tuple(sorted(r)) for r in p.tolist()} != set(itertools.combinations(range(len(y)), 2))
                ),
                _looks(lambda p, y: len({tuple(sorted(r)) for r in p.tolist()}) < len(y) * (len(y) - 1) // 2),
                _looks(lambda p, y: len({tuple(sorted(r)) for r in p.tolist()}) != len(y) * (len(y) - 1) // 2),
            ),
        ),
        Wrong(
            "any sentence twice",
            _looks(lambda p, y: p.flatten().bincount().max() > 1),
            "a *sentence* that occurs in two pairs rings the alarm; it should be in many",
            "Compare pairs, not sentences.",
            also=(_looks(lambda p, y: len(p[:, 0].unique()) < len(p)),),
        ),
        Wrong(
            "sentences are counted",
            _looks(lambda p, y: p.flatten().bincount().max() > len(y) - 1),
            "it is counted how often each *sentence* occurs: where pairs are missing, a copy hides below that limit",
            "Count how often each *pair* occurs.",
            also=(_looks(lambda p, y: p.flatten().bincount().max() > len(y) - 1 or _alone(p)),),
        ),
        Wrong(
            "numbers are counted",
            _looks(lambda p, y: len(p.sort(1).values.unique()) < len(p)),
            "`unique` without `dim=0` looks at single numbers, not at pairs",
            "`pairs.unique(dim=0)` keeps the different *rows*.",
            also=(_looks(lambda p, y: len(p.unique()) < len(p) or _alone(p)),),
        ),
        Wrong(
            "sums of numbers",
            _looks(lambda p, y: len(p.sum(1).unique()) < len(p) or (p[:, 0] == p[:, 1]).any()),
            "pairs are told apart by one number, a sum or a product, which different pairs share",
            "Keep both numbers of a pair.",
            also=(
                _looks(lambda p, y: len(p.prod(1).unique()) < len(p) or (p[:, 0] == p[:, 1]).any()),
                _looks(lambda p, y: _by_key(p, 10)),
                _looks(lambda p, y: len({"".join(map(str, sorted(r))) for r in p.tolist()}) < len(p) or _alone(p)),
                _looks(lambda p, y: len({"".join(map(str, sorted(r))) for r in p.tolist()}) < len(p)),
                _looks(lambda p, y: len(p.sum(1).unique()) < len(p)),
                _looks(lambda p, y: len((p[:, 0] ^ p[:, 1]).unique()) < len(p)),
                _looks(lambda p, y: len(p.prod(1).unique()) < len(p)),
            ),
        ),
        Wrong(
            "wrong axis",
            _looks(lambda p, y: len(p.sort(0).values.unique(dim=0)) < len(p) or _alone(p)),
            "the columns are sorted, which makes new pairs of the old numbers",
            "Sort the two numbers of each pair: `sort(dim=1)`.",
        ),
        Wrong(
            "pairs of labels",
            _looks(lambda p, y: len(y[p].sort(1).values.unique(dim=0)) < len(p)),
            "pairs of *labels* are compared; different sentences share them",
            "Compare the positions that come back.",
            also=(_looks(lambda p, y: len(y[p].unique(dim=0)) < len(p)),),
        ),
        Wrong(
            "inverted",
            lambda make_pairs, labels: not repeats_pairs(make_pairs, labels),
            "the answer is turned round: True where every pair is new",
            "Return True where a pair comes twice.",
            also=(_looks(lambda p, y: len(p.sort(1).values.unique(dim=0)) == len(p)),),
        ),
        Wrong(
            "own labels",
            lambda make_pairs, labels: repeats_pairs(make_pairs, torch.arange(5).repeat_interleave(5)),
            "the maker is called with other labels than those given",
            "Call `make_pairs(labels)`.",
            also=(lambda make_pairs, labels: repeats_pairs(make_pairs, torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])),),
        ),
        Wrong(
            "one class only",
            _looks(
                lambda p, y: repeats_pairs(lambda _: p[y[p[:, 0]] == y[p[:, 1]]], y) or _alone(p),
            ),
            "only pairs of one class are looked at",
            "A copy may join two classes: compare all pairs.",
            also=(_looks(lambda p, y: _copies(p[y[p[:, 0]] == y[p[:, 1]]])),),
        ),
        Wrong(
            "compared with the first",
            _looks(lambda p, y: (p.sort(1).values[1:] == p.sort(1).values[0]).all(1).any() or _alone(p)),
            "the first pair only is compared with the others",
            "Every pair may have a copy: use `unique`, or a set.",
            also=(_looks(lambda p, y: p.tolist().count(p[0].tolist()) > 1),),
        ),
        Wrong(
            "mirrored only",
            _looks(lambda p, y: any((j, i) in {tuple(r) for r in p.tolist()} for i, j in p.tolist())),
            "only a copy in the other order is found, none in the same",
            "(1, 4) may come twice as (1, 4). `table[i, j] += 1` with whole columns counts that once, too.",
        ),
        Wrong(
            "compared with a list",
            _looks(lambda p, y: p.shape != _all(y).shape or not torch.equal(p, _all(y))),
            "anything but the list of all pairs in one order rings the alarm",
            "Order is free and pairs may be missing: look for copies only.",
        ),
        Wrong(
            "larger first",
            _looks(lambda p, y: (p[:, 0] >= p[:, 1]).any() or len(p.unique(dim=0)) < len(p)),
            "a pair whose larger number stands first rings the alarm",
            "(4, 1) alone is no fault: sort each pair, then compare.",
            also=(
                _looks(lambda p, y: (p[:, 0] >= p[:, 1]).any()),
                _looks(lambda p, y: (p[:, 0] > p[:, 1]).any() or len(p.unique(dim=0)) < len(p)),
            ),
        ),
        Wrong(
            "never",
            lambda make_pairs, labels: False,
            "the answer is always False",
            "Compare the pairs that come back. (Two tensors in a set are never the same one: take tuples of numbers.)",
        ),
        Wrong(
            "always", lambda make_pairs, labels: True, "the answer is always True", "A maker without copies must pass."
        ),
    ),
    hints=(
        "When are two pairs the same pair?",
        "Sort the two numbers of every pair; then count different rows.",
        "`len(pairs.sort(dim=1).values.unique(dim=0)) < len(pairs)`, and look for i = j.",
    ),
)

EXERCISES = (NGRAMS, ROUTING, PAIRS, SPREAD, REPEATS)
