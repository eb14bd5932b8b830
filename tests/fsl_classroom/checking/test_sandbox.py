"""The engine survives what a learner may write: exits, interrupts, endless recursion and endless printing."""

import signal
import sys
import warnings

import pytest

from fsl_classroom import check
from fsl_classroom.checking.sandbox import Capture, Stopped, error_words, run
from fsl_classroom.checking.timelimit import Clock
from tests.fsl_classroom.checking.loops import forever_with_bare_except


@pytest.mark.parametrize(
    "error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), MemoryError(), ValueError("bad")]
)
def test_what_the_code_raises_is_handed_over(error):
    def raises():
        raise error

    ran = run(raises, Clock(5), Capture())
    assert ran.error is error
    assert (ran.result, ran.late) == (None, False)


def test_exits_and_recursion_end_in_words(toy, capsys):
    def leaves(embeddings, labels, n_way):
        sys.exit(1)

    def interrupts(embeddings, labels, n_way):
        raise KeyboardInterrupt

    def recurses(embeddings, labels, n_way):
        return recurses(embeddings, labels, n_way)

    for answer, words in ((leaves, "SystemExit: 1"), (interrupts, "KeyboardInterrupt"), (recurses, "RecursionError")):
        assert check(toy, answer) is toy.reference
        assert words in capsys.readouterr().out


def test_the_users_stop_ends_the_check_politely(toy, capsys, progress_file):
    def answer(embeddings, labels, n_way):
        try:
            signal.raise_signal(signal.SIGINT)  # what the stop button does
        finally:
            forever_with_bare_except()

    before = signal.getsignal(signal.SIGINT)
    assert check(toy, answer) is toy.reference
    assert capsys.readouterr().out.startswith("○ 99.1 Prototypes: you stopped the check.")
    assert signal.getsignal(signal.SIGINT) is before
    assert not progress_file.exists()
    with pytest.raises(Stopped):
        run(lambda: signal.raise_signal(signal.SIGINT), Clock(5), Capture())


def test_an_error_names_type_message_and_line():
    def answer(x):
        y = x + 1
        return y @ "text"

    error = run(lambda: answer(1), Clock(5), Capture()).error
    assert error_words(error, answer) == [
        "TypeError: unsupported operand type(s) for @: 'int' and 'str'.",
        'Raised in line 3 of your function: return y @ "text"',
    ]


def test_an_error_inside_an_inner_function_is_found_too():
    def answer(x):
        def inner():
            return 1 / 0

        return inner()

    error = run(lambda: answer(1), Clock(5), Capture()).error
    assert error_words(error, answer)[1] == "Raised in line 3 of your function: return 1 / 0"


def test_an_error_whose_message_cannot_be_made_is_named():
    class Odd(Exception):
        def __str__(self):
            raise ValueError

    assert error_words(Odd(), len) == ["Odd: (its message cannot be shown)"]
    assert len(error_words(ValueError("x" * 10**6), len)[0]) < 300


def test_printing_without_end_is_cut():
    out = Capture(limit=10)
    for _ in range(100_000):
        out.write("abcd")
    assert out.text() == "abcdabcdab\n… and 399,990 more characters"
    assert len(out._kept) == 3


def printed(*texts, limit=2000):
    out = Capture(limit)
    for text in texts:
        out.write(text)
    return out.text()


def test_only_the_first_ten_lines_are_shown():
    assert printed(*["hello", "\n"] * 5000) == "hello\n" * 10 + "… and 4,990 more lines"
    assert printed("a\n" * 10) == "\n".join("a" * 10)
    assert printed("a\n" * 10, "b") == "a\n" * 10 + "… and 1 more line"
    assert printed("abcdef\nghi\njkl", limit=8) == "abcdef\ng …\n… and 1 more line"
    assert printed("step 1\rstep 2\r\n") == "step 1\nstep 2"
    assert printed() == printed("\n") == ""


def test_what_the_answer_prints_comes_after_the_verdict(toy, capsys):
    def answer(embeddings, labels, n_way):
        print("shape", tuple(embeddings.shape))
        print("to stderr", file=sys.stderr)
        warnings.warn("mind this", stacklevel=1)
        return toy.reference(embeddings, labels, n_way)

    assert check(toy, answer) is answer
    said, errors = capsys.readouterr()
    assert said.splitlines()[1:5] == [
        "  Your function printed:",
        "  shape (6, 4)",
        "  to stderr",
        "  UserWarning: mind this",
    ]
    assert errors == ""


def test_closing_the_output_or_asking_for_input_does_no_harm(toy, capsys):
    def closes(embeddings, labels, n_way):
        sys.stdout.close()
        return toy.reference(embeddings, labels, n_way)

    def asks(embeddings, labels, n_way):
        return input("?")

    assert check(toy, closes) is closes
    assert check(toy, asks) is toy.reference
    assert "input() has nobody to ask" in capsys.readouterr().out
