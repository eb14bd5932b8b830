"""The quiz bank as Markdown pages for the book, as Moodle's GIFT, and as printable tests with an answer key.

    python -m tools.classroom.quiz --lessons 05 07 --questions 10 --seed 3 --out build/quiz    a test, its key, and questions.gift
    python -m tools.classroom.quiz --pages build/quiz-pages                                      one page for each lesson

The same seed gives the same test. The questions are in docs/teaching/quiz/questions.toml.
"""

from __future__ import annotations

import argparse
import random
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.classroom.printable import page

ROOT = Path(__file__).resolve().parents[2]
BANK = ROOT / "docs" / "teaching" / "quiz" / "questions.toml"
COMMON = {"id", "lesson", "difficulty", "objective", "text", "because"}
KINDS = {"right", "wrong"}, {"answer", "tolerance"}  # multiple choice, numeric
LETTERS = "abcdefgh"


@dataclass(frozen=True)
class Question:
    """One question: multiple choice if `options` is not empty, else numeric.

    options: (text, right?, why) each, the right one first
    answer, tolerance: a numeric answer, and the largest difference from it that still counts as right
    """

    id: str
    lesson: str
    difficulty: int
    objective: str
    text: str
    because: str
    options: tuple[tuple[str, bool, str], ...] = ()
    answer: float = 0.0
    tolerance: float = 0.0


def load(path: Path = BANK) -> list[Question]:
    """Returns all questions in the order of the file. Raises ValueError, which names the question and its fault."""
    with open(path, "rb") as file:
        rows = tomllib.load(file)["question"]
    found = [_question(row) for row in rows]
    ids = [question.id for question in found]
    if twice := sorted({i for i in ids if ids.count(i) > 1}):
        raise ValueError(f"{path.name}: used twice: {', '.join(twice)}.")
    return found


def _question(row: dict) -> Question:
    name, keys = row.get("id", "a question without id"), set(row)
    if keys - COMMON not in KINDS or not keys >= COMMON:
        wanted = " or ".join(", ".join(sorted(kind)) for kind in KINDS)
        raise ValueError(f"{name}: needs {', '.join(sorted(COMMON))} and {wanted}; it has {', '.join(sorted(keys))}.")
    if empty := sorted(key for key in COMMON if row[key] == ""):
        raise ValueError(f"{name}: empty: {', '.join(empty)}.")
    common = {key: row[key] for key in COMMON}
    if "answer" in row:
        if row["tolerance"] < 0:
            raise ValueError(f"{name}: a tolerance is at least 0.")
        return Question(**common, answer=row["answer"], tolerance=row["tolerance"])
    wrong = row["wrong"]
    if len(wrong) < 2 or any(set(option) != {"text", "why"} or not all(option.values()) for option in wrong):
        raise ValueError(f"{name}: two or more wrong options are needed, each with text and why.")
    options = ((row["right"], True, row["because"]), *((o["text"], False, o["why"]) for o in wrong))
    if len({text for text, _, _ in options}) < len(options):
        raise ValueError(f"{name}: two options are the same.")
    return Question(**common, options=options)


def number(value: float) -> str:
    """Writes a number without needless digits: 35, 0.75, -8.96."""
    return f"{value:.10g}"


def shuffled(question: Question, dice: random.Random) -> Question:
    """Returns the question with its options in another order."""
    options = tuple(dice.sample(question.options, len(question.options)))
    return Question(**{**question.__dict__, "options": options})


def draw(questions: Sequence[Question], count: int, seed: int) -> list[Question]:
    """Draws `count` questions evenly from the lessons and shuffles their options. Raises ValueError if there are too few."""
    if not 1 <= count <= len(questions):
        raise ValueError(f"{count} questions were asked for; the chosen lessons have {len(questions)}.")
    dice = random.Random(seed)
    lessons = sorted({question.lesson for question in questions})
    piles = {
        name: dice.sample(own, len(own)) for name in lessons if (own := [q for q in questions if q.lesson == name])
    }
    taken: list[Question] = []
    while len(taken) < count:
        for name in dice.sample(lessons, len(lessons)):
            if piles[name] and len(taken) < count:
                taken.append(piles[name].pop())
    order = {question.id: place for place, question in enumerate(questions)}
    return [shuffled(question, dice) for question in sorted(taken, key=lambda q: order[q.id])]


# ------------------------------------------------------------------------------------------------ Markdown


def test_page(questions: Sequence[Question], seed: int) -> str:
    """Returns a test for students, without answers, as Markdown."""
    lines = [f"# Test {seed}", "", "Name: ______________________  Date: ______________", ""]
    lines += ["One option is right. Numbers: a calculator is allowed, three digits are enough.", ""]
    for place, question in enumerate(questions, 1):
        lines += [f"**{place}.** {question.text}", ""]
        boxes = [f"☐ {LETTERS[i]}) {text}" for i, (text, _, _) in enumerate(question.options)]
        lines += ["  \n".join(boxes) or "Answer: ____________", ""]
    return "\n".join(lines)


def key_page(questions: Sequence[Question], seed: int) -> str:
    """Returns the answer key of a test, with a reason for each option, as Markdown."""
    lines = [f"# Key of test {seed}", ""]
    for place, question in enumerate(questions, 1):
        lines += [f"**{place}.** {answer_of(question)} ({question.id})", "", *reasons(question), ""]
    return "\n".join(lines)


def answer_of(question: Question) -> str:
    """Returns the right letter, or the number and its tolerance."""
    if question.options:
        return LETTERS[next(i for i, (_, right, _) in enumerate(question.options) if right)] + ")"
    return number(question.answer) + (f" ± {number(question.tolerance)}" if question.tolerance else "")


def reasons(question: Question) -> list[str]:
    """Returns a line for each option, or how the number comes about."""
    if not question.options:
        return [f"- {question.because}"]
    marks = ((LETTERS[i], "right" if right else "wrong", why) for i, (_, right, why) in enumerate(question.options))
    return [f"- {letter}) {word}: {why}" for letter, word, why in marks]


def lesson_page(questions: Sequence[Question], lesson: str) -> str:
    """Returns the book's page of a lesson's questions, with folded answers. A question's id fixes the order of its options."""
    lines = [f"# Questions on lesson {lesson}", ""]
    for question in (shuffled(q, random.Random(q.id)) for q in questions if q.lesson == lesson):
        lines += [f"**{question.id}** ({question.objective}; difficulty {question.difficulty}/3)  ", question.text, ""]
        lines += [f"- {LETTERS[i]}) {text}" for i, (text, _, _) in enumerate(question.options)]
        lines += ["", "<details><summary>Answer</summary>", "", answer_of(question), "", *reasons(question), ""]
        lines += ["</details>", ""]
    return "\n".join(lines)


# ------------------------------------------------------------------------------------------------ GIFT


def escape(text: str) -> str:
    """Escapes the characters that have a meaning in GIFT."""
    text = text.replace("\\", "\\\\")
    for sign in "~=#{}:":
        text = text.replace(sign, "\\" + sign)
    return text.replace("\n", "\\n")


def gift(questions: Sequence[Question]) -> str:
    """Returns the questions in Moodle's import format GIFT: a category for each lesson, feedback for every option."""
    parts, lesson = [], None
    for question in questions:
        if question.lesson != lesson:
            lesson = question.lesson
            parts.append(f"$CATEGORY: $course$/top/Few-shot learning/Lesson {lesson}")
        head = f"::{question.id}::[markdown]{escape(question.text)} "
        if question.options:
            marks = "\n".join(
                f"{'=' if right else '~'}{escape(text)}#{escape(why)}" for text, right, why in question.options
            )
            parts.append(f"{head}{{\n{marks}\n}}")
        else:
            value = f"{number(question.answer)}:{number(question.tolerance)}"
            parts.append(f"{head}{{#{value}####{escape(question.because)}}}")
    return "\n\n".join(parts) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line. Returns the exit status."""
    parser = argparse.ArgumentParser(description="Tests, keys and Moodle questions out of the quiz bank.")
    parser.add_argument("--lessons", nargs="+", metavar="NN", help="default: all")
    parser.add_argument("--questions", type=int, default=10, help="questions of the printed test (10)")
    parser.add_argument("--seed", type=int, default=0)
    place = parser.add_mutually_exclusive_group(required=True)
    place.add_argument("--out", type=Path, metavar="FOLDER", help="a test and its key (.md, .html), and questions.gift")
    place.add_argument("--pages", type=Path, metavar="FOLDER", help="one Markdown page for each lesson")
    options = parser.parse_args(arguments)
    bank = load()
    known = sorted({question.lesson for question in bank})
    if unknown := sorted(set(options.lessons or []) - set(known)):
        print(f"quiz: no questions for {', '.join(unknown)}. Lessons: {', '.join(known)}.", file=sys.stderr)
        return 1
    chosen = [question for question in bank if question.lesson in (options.lessons or known)]
    if options.pages:
        files = {f"lesson-{name}.md": lesson_page(chosen, name) for name in options.lessons or known}
    else:
        try:
            test = draw(chosen, options.questions, options.seed)
        except ValueError as word:
            print(f"quiz: {word}", file=sys.stderr)
            return 1
        written = {
            f"test-{options.seed}": test_page(test, options.seed),
            f"key-{options.seed}": key_page(test, options.seed),
        }
        files = {f"{name}.md": text for name, text in written.items()}
        files |= {f"{name}.html": page(text) for name, text in written.items()} | {"questions.gift": gift(chosen)}
    folder = options.pages or options.out
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
        print(folder / name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
