"""The parts of an exercise. Lesson authors fill them in, and the checking engine reads them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch


@dataclass(frozen=True, eq=False)
class Case:
    """One call to try.

    says:   what is tried, e.g. "5 classes, unequal shots"; printed if the call fails
    args:   positional arguments: tensors, numbers, strings, functions, or lists, tuples, dicts and dataclasses of these.
            Every call gets its own copy, so that an answer that writes into them is noticed and spoils no other call.
    kwargs: keyword arguments
    """

    says: str
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Property:
    """A law that is tested after the values.

    says:  the law, e.g. "permuting the rows changes nothing"
    holds: called with (answer, reference); returns None if the law holds, else one sentence about what came out instead
    """

    says: str
    holds: Callable[[Callable[..., Any], Callable[..., Any]], str | None]


@dataclass(frozen=True, eq=False)
class Wrong:
    """A classic wrong answer. A learner who gives it gets a diagnosis and a hint.

    name:      a short name for tests, e.g. "sum instead of mean"
    answer:    the wrong function itself
    diagnosis: completes "This is what you get when ..." and "A common cause: ...", e.g. "the rows of a class are summed and never
               divided"
    hint:      one sentence that points to the cure
    also:      other ways in which people write the same mistake, where their outcomes differ from that of `answer`
    """

    name: str
    answer: Callable[..., Any]
    diagnosis: str
    hint: str
    also: tuple[Callable[..., Any], ...] = ()

    @property
    def answers(self) -> tuple[Callable[..., Any], ...]:
        """Returns every spelling of the mistake: `answer` and those of `also`."""
        return (self.answer, *self.also)


@dataclass(frozen=True, eq=False)
class Exercise:
    """One exercise, with all that is needed to judge an answer to it.

    id:         "NN.k": lesson and number, e.g. "05.1"
    title:      e.g. "Prototypes"
    reference:  the right answer; `check` returns it while the learner's answer is not right
    cases:      called with a generator of fixed seed; returns the calls to try. They should be small and fast, and include
                unequal shots, a single query and float64. The same seed must give the same cases.
    wrong:      at least five classic wrong answers, no two with the same outcome on every case and property
    right:      at least four other ways to write the right answer (for the tests)
    hints:      three, from a nudge to almost the code
    properties: laws to test after the values and the gradient's flow, in this order
    gradient:   positions in `args` of float tensors (or dicts and lists of them) through which gradient must flow. Each
                case is then also run in float64; the answer's autograd must agree with central differences and with the
                reference's gradient.
    tolerance:  relative and absolute, for float32; at most 1e-6 if all float tensors among the inputs are float64
    same:       a comparison of its own: (answer's result, reference's result) -> None or one sentence. It replaces the
                comparison of values, once types, shapes and dtypes agree. The default knows tensors, arrays, numbers,
                strings, modules, and tuples, lists, dicts and dataclasses of these.
    """

    id: str
    title: str
    reference: Callable[..., Any]
    cases: Callable[[torch.Generator], Sequence[Case]]
    wrong: tuple[Wrong, ...]
    right: tuple[Callable[..., Any], ...]
    hints: tuple[str, str, str]
    properties: tuple[Property, ...] = ()
    gradient: tuple[int, ...] = ()
    tolerance: float = 1e-5
    same: Callable[[Any, Any], str | None] | None = None

    @property
    def lesson(self) -> str:
        """Returns the lesson's number: "05" of "05.1"."""
        return self.id.partition(".")[0]
