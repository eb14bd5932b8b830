"""The quiz bank and what is made of it: every question is complete, every number is right, every export can be read back."""

from __future__ import annotations

import random
import re
from collections import Counter
from pathlib import Path

import pytest

from fsl_classroom.checking.catalogue import lesson_files
from tests.tools.classroom.quiz_answers import COMPUTED
from tools.classroom import quiz
from tools.classroom.quiz import Question, draw, escape, gift, key_page, lesson_page, load, test_page

BANK = load()
IDS = [question.id for question in BANK]
ROOT = Path(__file__).resolve().parents[3]
test_page.__test__ = False  # a function of the tool, not a test


# ------------------------------------------------------------------------------------------------ the bank


def test_every_lesson_has_at_least_eight_questions_of_both_kinds():
    count = Counter(question.lesson for question in BANK)
    assert list(count) == list(lesson_files())
    assert min(count.values()) >= 8
    assert {q.lesson for q in BANK if q.options} == {q.lesson for q in BANK if not q.options} == set(count)


@pytest.mark.parametrize("question", BANK, ids=IDS)
def test_a_question_is_whole(question):
    assert re.fullmatch(rf"{question.lesson}-\d+", question.id)
    assert question.difficulty in (1, 2, 3)
    assert question.text.endswith(("?", ".")), "a question or a sentence"
    if question.options:
        assert sum(right for _, right, _ in question.options) == 1
        assert all(why.endswith(".") and len(why.split()) >= 2 for _, _, why in question.options)
        longest = max(question.options, key=lambda option: len(option[0]))
        assert len(longest[0]) < 110, "an option that long gives itself away or is not read"


def test_the_right_option_is_not_known_by_its_length():
    choices = [([len(text) for text, _, _ in q.options], q.id) for q in BANK if q.options]  # the right one comes first
    longest = [name for (right, *wrong), name in choices if right > max(wrong)]
    assert len(longest) <= 0.4 * len(choices), longest  # one third would be chance
    assert [name for (right, *wrong), name in choices if right > 1.3 * max(wrong)] == []


def test_numeric_answers_are_all_computed():
    assert set(COMPUTED) == {question.id for question in BANK if not question.options}


@pytest.mark.parametrize("name", COMPUTED)
def test_a_numeric_answer_is_right(name):
    question = BANK[IDS.index(name)]
    assert abs(COMPUTED[name]() - question.answer) <= max(question.tolerance, 1e-9)


def test_questions_are_not_those_of_the_lessons():
    lessons = " ".join(path.read_text(encoding="utf-8") for path in (ROOT / "lessons").glob("*.py"))
    plain = re.sub(r"[^a-z0-9 ]", "", re.sub(r"\s+", " ", lessons.lower()))
    assert [q.id for q in BANK if re.sub(r"[^a-z0-9 ]", "", q.text.lower()) in plain] == []


# ------------------------------------------------------------------------------------------------ reading the file

WHOLE = """
[[question]]
id = "05-1"
lesson = "05"
difficulty = 1
objective = "o"
text = "t?"
because = "b."
"""
CHOICE = 'right = "r"\nwrong = [{text = "x", why = "y."}, {text = "z", why = "y."}]\n'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (WHOLE, "05-1: needs"),
        (WHOLE + CHOICE + "answer = 1\ntolerance = 0\n", "05-1: needs"),
        (WHOLE + CHOICE + "hint = 'h'\n", "05-1: needs"),
        (WHOLE + 'right = "r"\nwrong = [{text = "x", why = "y."}]\n', "two or more wrong options"),
        (WHOLE + CHOICE.replace('"z", why = "y."', '"z", why = ""'), "each with text and why"),
        (WHOLE + CHOICE.replace('"z"', '"r"'), "two options are the same"),
        (WHOLE + "answer = 1\ntolerance = -1\n", "a tolerance is at least 0"),
        (WHOLE.replace('"o"', '""') + CHOICE, "empty: objective"),
        ((WHOLE + CHOICE) * 2, "used twice: 05-1"),
    ],
)
def test_a_broken_question_is_named(tmp_path, text, words):
    path = tmp_path / "questions.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=words):
        load(path)
    path.write_text(WHOLE + CHOICE, encoding="utf-8")
    assert [q.id for q in load(path)] == ["05-1"]


# ------------------------------------------------------------------------------------------------ tests and keys


def test_the_same_seed_gives_the_same_test_and_another_seed_another():
    chosen = [q for q in BANK if q.lesson in ("05", "07")]
    pages = [test_page(draw(chosen, 10, seed), seed) for seed in (3, 3, 4)]
    assert pages[0] == pages[1]
    assert pages[0].splitlines()[4:] != pages[2].splitlines()[4:]


def test_a_test_is_spread_over_the_lessons_without_repetition():
    chosen = [q for q in BANK if q.lesson in ("01", "05", "07")]
    for seed in range(10):
        found = draw(chosen, 10, seed)
        assert len({q.id for q in found}) == 10
        assert set(Counter(q.lesson for q in found).values()) == {3, 4}
    with pytest.raises(ValueError, match=f"have {len(chosen)}"):
        draw(chosen, len(chosen) + 1, 0)


def test_the_key_names_the_right_letter_of_the_printed_order():
    found = draw(BANK, len(BANK), 5)
    shown = re.split(r"^\*\*\d+\.\*\* ", test_page(found, 5), flags=re.M)[1:]
    keys = re.split(r"^\*\*\d+\.\*\* ", key_page(found, 5), flags=re.M)[1:]
    for question, text, key in zip(found, shown, keys, strict=True):
        if question.options:
            right = next(option for option, is_right, _ in BANK[IDS.index(question.id)].options if is_right)
            assert f"☐ {key[0]}) {right}" in text
        else:
            assert float(key.split()[0]) == question.answer
            assert question.because not in text


def test_a_lesson_page_folds_its_answers():
    text = lesson_page(BANK, "05")
    assert text.count("<details>") == text.count("</details>") == sum(q.lesson == "05" for q in BANK)
    assert text == lesson_page(BANK, "05")
    assert "06-1" not in text


# ------------------------------------------------------------------------------------------------ GIFT


def read_gift(text: str) -> dict[str, list[tuple[str, str, str]]]:
    """A small reader of GIFT: id -> (mark, text, feedback) of its answers, with escapes taken back."""
    found = {}
    for name, body in re.findall(r"::(.*?)::\[markdown\].*?(?<!\\)\{(.*?)(?<!\\)\}", text, flags=re.S):
        marks = re.findall(r"(?<!\\)([=~])((?:\\.|[^=~#])*?)#((?:\\.|[^=~#])*)", body, flags=re.S)
        if body.startswith("#"):
            value, _, because = body[1:].partition("####")
            marks = [("#", value, because)]
        found[name] = [(mark, *(re.sub(r"\\(.)", r"\1", part).strip() for part in rest)) for mark, *rest in marks]
    return found


def test_gift_can_be_read_back_whole():
    found = read_gift(gift(BANK))
    assert list(found) == IDS
    for question in BANK:
        if question.options:
            wanted = [("=" if right else "~", text, why) for text, right, why in question.options]
            assert found[question.id] == wanted
        else:
            ((_, value, because),) = found[question.id]
            assert [float(part) for part in value.split(":")] == [question.answer, question.tolerance]
            assert because == question.because


def test_gift_escapes_its_own_characters():
    assert escape("a = {b}: ~c #d \\") == r"a \= \{b\}\: \~c \#d " + "\\\\"
    odd = Question("05-9", "05", 1, "o", "x = {1}?", "b: ~#.", (("p = 1", True, "b: ~#."), ("q#", False, "{n}.")))
    assert read_gift(gift([odd]))["05-9"] == [("=", "p = 1", "b: ~#."), ("~", "q#", "{n}.")]
    assert "\n\n" not in escape("one\n\ntwo")  # an empty line would end the question


# ------------------------------------------------------------------------------------------------ the command line


def test_the_command_writes_test_key_and_gift(tmp_path, capsys):
    arguments = ["--lessons", "05", "07", "--questions", "10", "--seed", "3", "--out", str(tmp_path)]
    assert quiz.main(arguments) == 0
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"test-3.md", "test-3.html", "key-3.md", "key-3.html", "questions.gift"}
    assert "@media print" in (tmp_path / "test-3.html").read_text(encoding="utf-8")
    assert len(read_gift((tmp_path / "questions.gift").read_text(encoding="utf-8"))) == 16
    assert quiz.main(["--pages", str(tmp_path / "pages"), "--lessons", "05"]) == 0
    assert [path.name for path in (tmp_path / "pages").iterdir()] == ["lesson-05.md"]
    capsys.readouterr()
    assert quiz.main(["--lessons", "27", "--out", str(tmp_path)]) == 1
    assert "no questions for 27" in capsys.readouterr().err
    assert quiz.main(["--lessons", "05", "--questions", "99", "--out", str(tmp_path)]) == 1
    assert "have 8" in capsys.readouterr().err


def test_shuffling_keeps_every_option():
    question = next(q for q in BANK if q.options)
    assert set(quiz.shuffled(question, random.Random(1)).options) == set(question.options)
