"""The type of a variant, its random choices, and the function with which a family builds one."""

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

# The names that an answer may use without importing them. The set-up cell of an assignment imports the same ones.
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
    difficulty: 1 to 5; also the points it is worth
    statement:  the task in Markdown: shapes, and the drawn requirements with their numbers
    head:       the function's `def` line and docstring
    body:       the lines of the reference, indented
    """

    name: str
    difficulty: int
    statement: str
    head: str
    body: str

    def written(self, inside: str | None = None) -> str:
        """Returns the source of the whole function. inside: indented lines to use in place of the body."""
        return f"{self.head}\n{self.body if inside is None else inside}"


class Draw:
    """The random choices of one variant. The same id and seed give the same choices on every machine."""

    def __init__(self, exercise_id: str, seed: int) -> None:
        self._random = random.Random(f"{exercise_id}@{seed}")  # seeding from a string uses SHA-512: the same everywhere
        self.id, self.seed = exercise_id, seed

    def one(self, *choices: Any) -> Any:
        """Returns one of the choices."""
        return self._random.choice(choices)

    def some(self, count: int, *choices: Any) -> list[Any]:
        """Returns `count` of the choices, in the order of the arguments."""
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
    """Builds a variant from the parts that its family wrote.

    signature: "prototypes(embeddings: Tensor, ...) -> Tensor"
    doc:       the function's docstring
    task:      the idea, which all variants of a family share, in Markdown
    twists:    the drawn requirements with their numbers, one sentence each
    shapes:    a Markdown table of arguments and results
    body:      the lines of the reference. They are compiled, so that the text that a teacher reads is the code that judges.
    right:     at least two other ways to write the reference
    wrong:     classic wrong answers; the public solution is added to them
    cases:     default: those of the public exercise; more_cases are added to them
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
    exec(compile(source, f"<reference of {variant_id}>", "exec"), space)  # text of this package, never of a learner
    return space[name]


def percent(fraction: float) -> str:
    """Returns a fraction as percent: 0.995 -> "99.5 %"."""
    return f"{100 * fraction:g} %"
