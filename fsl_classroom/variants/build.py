"""What a variant is, and how a family puts one together."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from textwrap import dedent, indent
from typing import Any

import torch
import torch.nn.functional as F
from scipy.special import stdtrit
from torch import Generator, Tensor, nn
from torch.func import functional_call, grad

from fsl_classroom.checking import catalogue
from fsl_classroom.checking.model import Case, Exercise, Wrong
from fsl_course.episodes import Episode

# What an answer may use without importing it. The set-up cell of an assignment imports the same names.
NAMES: dict[str, Any] = {
    "math": math,
    "torch": torch,
    "F": F,
    "stdtrit": stdtrit,
    "Tensor": Tensor,
    "nn": nn,
    "functional_call": functional_call,
    "grad": grad,
    "Callable": Callable,
    "Sequence": Sequence,
    "Episode": Episode,
}
IMPORTS = """\
import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from scipy.special import stdtrit
from torch import Tensor, nn
from torch.func import functional_call, grad

from fsl_course import Episode
from fsl_classroom import check, hint"""


@dataclass(frozen=True, eq=False, kw_only=True)
class Variant(Exercise):
    """An exercise with drawn requirements, and the text that an assignment needs.

    name:       the function's name
    difficulty: 1 to 5, the points it is worth
    statement:  what to write, in Markdown: shapes, and the drawn requirements with their numbers
    head:       the function's `def` line and docstring
    body:       the lines of the reference, indented
    """

    name: str
    difficulty: int
    statement: str
    head: str
    body: str

    def written(self, inside: str | None = None) -> str:
        """The whole function; inside: lines (indented) that stand in place of the body."""
        return f"{self.head}\n{self.body if inside is None else inside}"


class Draw:
    """The choices of one variant. The same id and seed give the same choices on every machine."""

    def __init__(self, exercise_id: str, seed: int) -> None:
        self._random = random.Random(f"{exercise_id}@{seed}")  # a text is hashed by SHA-512: stable
        self.id, self.seed = exercise_id, seed

    def one(self, *choices: Any) -> Any:
        """One of the choices."""
        return self._random.choice(choices)

    def some(self, count: int, *choices: Any) -> list[Any]:
        """`count` of the choices, in the order given here."""
        chosen = self._random.sample(range(len(choices)), count)
        return [choices[i] for i in sorted(chosen)]


def build(
    draw: Draw,
    *,
    title: str,
    difficulty: int,
    signature: str,
    doc: str,
    task: str,
    twists: Sequence[str],
    shapes: str,
    body: str,
    right: Sequence[Callable[..., Any]],
    wrong: Sequence[Wrong],
    hints: tuple[str, str, str],
    cases: Callable[[Generator], Sequence[Case]] | None = None,
    more_cases: Callable[[Generator], Sequence[Case]] | None = None,
    gradient: tuple[int, ...] = (),
) -> Variant:
    """A variant out of what its family wrote.

    signature: "prototypes(embeddings: Tensor, ...) -> Tensor"
    task:      the idea that stays as it was, in Markdown
    twists:    the drawn requirements, one sentence each, with their numbers
    shapes:    a Markdown table of what goes in and comes out
    body:      the lines of the reference, not indented; it is compiled, so that what a teacher reads is what judges
    right:     the same written differently, at least twice
    wrong:     classic wrong answers; the public solution is added here
    cases:     those of the public exercise where none are given; more_cases come on top
    """
    name = signature.partition("(")[0]
    head = f'def {signature}:\n    """{doc}"""'
    body = indent(dedent(body).strip("\n"), "    ")
    variant_id = f"{draw.id}@{draw.seed}"
    public = next(e for e in catalogue.of_lesson(draw.id[:2]) if e.id == draw.id)
    asked = "; ".join(twist.rstrip(".") for twist in twists)
    known = Wrong(
        "the public solution",
        public.reference,
        f"the public solution of {draw.id} is handed in: the variant asks for {asked}",
        "Read the list in the task: each line changes the function.",
    )
    own = cases or public.cases
    listed = "\n".join(f"- {twist}" for twist in twists)
    return Variant(
        id=variant_id,
        title=title,
        reference=_compiled(f"{head}\n{body}", name, variant_id),
        cases=(lambda generator: [*own(generator), *more_cases(generator)]) if more_cases else own,
        wrong=(*wrong, known),
        right=tuple(right),
        hints=hints,
        gradient=gradient,
        name=name,
        difficulty=difficulty,
        statement=f"{task}\n\nThis variant asks for:\n\n{listed}\n\n{shapes}",
        head=head,
        body=body,
    )


def _compiled(source: str, name: str, variant_id: str) -> Callable[..., Any]:
    space = dict(NAMES)
    exec(
        compile(source, f"<reference of {variant_id}>", "exec"), space
    )  # our own text: nothing of a learner's is in it
    return space[name]


def percent(fraction: float) -> str:
    """A fraction as percent: 0.995 -> "99.5 %"."""
    return f"{100 * fraction:g} %"
