"""`check`: gives an instant verdict on an answer in words and returns a function to go on with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from fsl_classroom.checking import progress
from fsl_classroom.checking.catalogue import find
from fsl_classroom.checking.describe import printable
from fsl_classroom.checking.judge import (
    BUSY,
    ENTRY,
    PATIENCE,
    Fault,
    Outcomes,
    diagnose,
    examine,
    first_fault,
    gradient_fault,
)
from fsl_classroom.checking.model import Exercise, Wrong
from fsl_classroom.checking.outcome import cases_of
from fsl_classroom.checking.sandbox import Capture, Stopped, message_of, run
from fsl_classroom.checking.signature import is_unattempted, refuse_call
from fsl_classroom.checking.timelimit import Clock
from fsl_classroom.checking.unfinished import marked
from fsl_classroom.checking.work import cell_of

SECONDS = 2.0  # for the learner's code, all calls together


@dataclass
class Verdict:
    """The result of a check.

    kind:      "right", "wrong", "unattempted", "stopped", "broken" (the exercise itself is) or "reference" (it was handed in)
    lines:     what was found, one sentence each
    diagnosed: the classic mistake that the answer makes, if it is one
    hedged:    whether other mistakes may look the same, because no values could be compared
    printed:   what the answer printed
    notes:     what the learner should know though it does no harm, one sentence each
    """

    kind: str
    lines: list[str] = field(default_factory=list)
    diagnosed: Wrong | None = None
    hedged: bool = False
    printed: str = ""
    notes: list[str] = field(default_factory=list)

    @property
    def diagnosis(self) -> str:
        """Returns the diagnosis as a sentence, or "" if the answer makes none of the classic mistakes."""
        if self.diagnosed is None:
            return ""
        begins = "A common cause:" if self.hedged else "This is what you get when"
        return f"{begins} {self.diagnosed.diagnosis.rstrip('.')}."


def check(exercise: str | Exercise, answer: Callable[..., Any]) -> Callable[..., Any]:
    """Judges an answer and prints what it found.

    exercise: an id such as "05.1" (or an Exercise)
    answer:   the function that was written

    Returns the answer if it is right and the reference otherwise, so that the rest of the lesson works for everyone. Records the
    result in the progress file. Raises nothing whatever the answer does: it stops endless loops after 2 seconds (timelimit.py
    has the limits of that), cuts long output and restores global state. Raises LookupError or ValueError for an unknown id.
    """
    exercise = exercise if isinstance(exercise, Exercise) else find(exercise)
    with marked(f"{exercise.id} {exercise.title}") as notes:
        try:
            verdict = judge(exercise, answer, SECONDS, busy=BUSY)
        except (KeyboardInterrupt, Stopped):
            verdict = Verdict("stopped")
        except Exception as error:  # a result that cannot even be inspected
            words = f"Your function's result cannot be judged ({type(error).__name__}: {message_of(error)[:120]})."
            verdict = Verdict("wrong", [words])
    verdict.notes += notes
    print(printable(_report(exercise, verdict)))
    if verdict.kind in ("right", "wrong"):
        last = "" if verdict.kind == "right" else printable(verdict.diagnosis or " ".join(verdict.lines))
        written = cell_of(answer)
        if note := progress.record(exercise, passed=verdict.kind == "right", diagnosis=last, answer=written):
            print(f"  Note: {note}")
    return answer if verdict.kind == "right" else exercise.reference


def judge(
    exercise: Exercise, answer: Any, seconds: float = SECONDS, *, busy: float = 1.0, patience: float = 1.0
) -> Verdict:
    """Returns the verdict on an answer. Prints and records nothing.

    seconds, busy: as `limit` and `busy` of `Clock`; patience: how many times longer than usual the catalogue may take
    """
    if answer is exercise.reference:
        return Verdict("reference")
    cases = cases_of(exercise)
    if words := refuse_call(exercise, cases, answer):
        return Verdict("wrong", [words])
    reference = examine(exercise, cases, exercise.reference, Clock(PATIENCE))
    if broken := next((o for o in reference.values() if o.late or o.error is not None), None):
        return Verdict("broken", [repr(broken.error)[:200] if broken.error else "its reference does not end"])
    clock = Clock(seconds, busy)
    cases = cases_of(exercise)
    outcomes = examine(exercise, cases, answer, clock, reference)
    if is_unattempted(answer, outcomes["case", 0]):
        return Verdict("unattempted")
    # Results may be objects of the learner's own class, whose methods run in comparisons, so these need the sandbox, too.
    look = Clock(seconds, busy)
    looked = run(lambda: first_fault(exercise, cases, outcomes, reference, answer, seconds), look, Capture())
    if looked.error is not None or looked.late:
        what = "takes too long" if looked.late else f"ends in a {type(looked.error).__name__}"
        return Verdict("wrong", [f"Comparing your function's result with the expected one {what}."])
    fault: Fault | None = looked.result or gradient_fault(exercise, cases, outcomes, reference, answer, clock)
    notes = _notes(outcomes, reference)
    if fault is None:
        return Verdict("right", [_counts(exercise, len(cases))], printed=outcomes["case", 0].printed, notes=notes)
    entry = diagnose(exercise, cases_of(exercise), outcomes, reference, patience * max(ENTRY, 3 * clock.used), answer)
    return Verdict("wrong", fault.lines, entry, fault.hedged, fault.printed, notes)


def _notes(outcomes: Outcomes, reference: Outcomes) -> list[str]:
    """Returns sentences about what does no harm but what the learner should know: changed global state, digits lost."""
    usual = {note for outcome in reference.values() for note in outcome.changes.notes}
    changed = sorted({note for outcome in outcomes.values() for note in outcome.changes.notes} - usual)
    notes = [f"your function changes {', '.join(changed)}. It was put back."] if changed else []
    if any(outcome.narrow for outcome in outcomes.values()):
        notes.append(
            "your function answers in float32 where it is given float64. With dtype=x.dtype no digits are lost."
        )
    return notes


def _counts(exercise: Exercise, cases: int) -> str:
    """Returns how much was tried, e.g. "6 cases, 2 properties, gradient"."""
    laws = len(exercise.properties)
    parts = [f"{cases} case{'s' * (cases != 1)}"]
    parts += [f"{laws} propert{'ies' if laws != 1 else 'y'}"] if laws else []
    parts += ["gradient"] if exercise.gradient else []
    return ", ".join(parts)


def _report(exercise: Exercise, verdict: Verdict) -> str:
    """Returns the text to print: one line if the answer is right, else three to eight, and what the function printed."""
    name = f"{exercise.id} {exercise.title}"
    help_line = f'hint("{exercise.id}") helps. The reference stands in for your function from here on.'
    if verdict.kind == "right":
        lines = [f"✓ {name}: right ({verdict.lines[0]})"]
    elif verdict.kind == "unattempted":
        lines = [f"○ {name}: not attempted yet. {help_line}"]
    elif verdict.kind == "stopped":
        lines = [f"○ {name}: you stopped the check. {help_line}"]
    elif verdict.kind == "reference":
        lines = [f"○ {name}: this is the reference, handed out earlier. Run the cell that defines your function again."]
    elif verdict.kind == "broken":
        lines = [
            f"○ {name}: the exercise itself is broken ({verdict.lines[0]}).",
            "Restart the kernel and try again: an earlier cell may have changed PyTorch. If it stays so, please report it.",
            help_line,
        ]
    else:
        lines = [f"✗ {name}: not right yet.", *verdict.lines]
        if verdict.diagnosed:
            lines += [verdict.diagnosis, f"Hint: {verdict.diagnosed.hint}"]
        lines.append(help_line)
    lines += [f"Note: {note}" for note in verdict.notes]
    if verdict.printed.strip():
        lines += ["Your function printed:", *verdict.printed.split("\n")]
    return "\n  ".join(lines)
