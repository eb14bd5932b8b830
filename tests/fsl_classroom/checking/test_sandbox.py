"""The engine survives what a learner may write: endless loops, endless printing, exits."""

import contextlib
import signal
import sys
import threading
import time
import warnings

import pytest
import torch

from fsl_classroom import check
from fsl_classroom.checking import check as desk
from fsl_classroom.checking.sandbox import Capture, Stopped, error_words, run
from fsl_classroom.checking.timelimit import Clock, _may_interrupt


def forever():
    while True:
        pass


def forever_with_bare_except():
    while True:
        try:  # noqa: SIM105
            sum(range(1000))
        except:  # noqa: E722
            pass


def forever_nested():
    while True:
        try:
            while True:
                try:
                    sum(range(1000))
                except:  # noqa: E722
                    continue
        except BaseException:
            sum(range(10))


def forever_in_finally():
    while True:
        try:
            sum(range(1000))
        finally:
            continue  # noqa: B012


def forever_suppressed():
    while True:
        with contextlib.suppress(BaseException):
            sum(range(1000))


def late_but_swallowed():
    with contextlib.suppress(BaseException):
        forever()
    return 3


LOOPS = [forever, forever_with_bare_except, forever_nested, forever_in_finally, forever_suppressed, late_but_swallowed]


def in_thread(function):
    """The result of a function that runs in a thread of its own; its exception is raised here."""
    box = []

    def target():
        try:
            box.append((function(), None))
        except BaseException as error:
            box.append((None, error))

    thread = threading.Thread(target=target)
    thread.start()
    thread.join(60)
    assert box, "the thread did not end"
    result, error = box[0]
    if error is not None:
        raise error
    return result


def here(function):
    return function()


@pytest.mark.parametrize("where", [here, in_thread])
@pytest.mark.parametrize("loop", LOOPS)
def test_endless_loops_are_stopped(loop, where):
    """In the main thread by an alarm, elsewhere by the watchdog."""
    tracer = sys.gettrace()

    def attempt():
        clock = Clock(0.15)
        return clock.run(loop), clock.is_over, sys.getprofile()

    assert where(attempt) == ((None, None, True), True, None)
    assert sys.gettrace() is tracer
    assert where(lambda: Clock(5).run(lambda: sum(range(1000)))) == (499500, None, False)  # nothing is left behind


def endless_gradients():
    while True:
        torch.func.grad(lambda x: x * x)(torch.tensor(1.0))


def endless_gradients_and_bare_except():
    while True:
        try:  # noqa: SIM105
            torch.func.grad(lambda x: torch.func.vmap(torch.sin)(x).sum())(torch.ones(3))
        except:  # noqa: E722
            pass


@pytest.mark.parametrize("where", [here, in_thread])
@pytest.mark.parametrize("loop", [endless_gradients, endless_gradients_and_bare_except])
def test_a_gradient_that_is_cut_off_is_closed(loop, where):
    """torch.func keeps a stack of transforms: one that stays open makes every later operation fail."""

    def attempt():
        found = [Clock(0.01 + 0.007 * k).run(loop) for k in range(10)]
        weights = torch.nn.Linear(2, 2).to(torch.float64).weight  # refused inside a transform
        return found, weights.dtype

    assert where(attempt) == ([(None, None, True)] * 10, torch.float64)


@pytest.mark.parametrize("where", [here, in_thread])
def test_check_survives_an_endless_loop(endless, capsys, monkeypatch, where):
    monkeypatch.setattr(desk, "SECONDS", 0.3)

    def answer(embeddings, labels, n_way):
        forever_with_bare_except()

    assert where(lambda: check(endless, answer)) is endless.reference
    said = capsys.readouterr().out
    assert "No answer within 0.3 seconds" in said
    assert "This is what you get when the loop has no end." in said


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no SIGALRM")
def test_sleep_is_interrupted_by_the_alarm():
    assert Clock(0.15).run(lambda: time.sleep(60)) == (None, None, True)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no SIGALRM")
def test_an_alarm_that_was_set_before_still_rings():
    rung = []
    before = signal.signal(signal.SIGALRM, lambda number, frame: rung.append(number))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        assert Clock(0.1).run(forever)[2]
        assert signal.getsignal(signal.SIGALRM) is not None
        assert 0 < signal.getitimer(signal.ITIMER_REAL)[0] <= 0.3
        deadline = time.monotonic() + 30
        while not rung and time.monotonic() < deadline:
            time.sleep(0.01)
        assert rung == [signal.SIGALRM]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_several_calls_share_one_clock_and_importing_is_free(tmp_path, monkeypatch):
    clock = Clock(0.3)
    assert clock.run(lambda: time.sleep(0.2))[2] is False
    assert clock.run(lambda: time.sleep(60) if hasattr(signal, "setitimer") else forever())[2] is True
    assert clock.run(lambda: 1) == (None, None, True)  # nothing is left

    (tmp_path / "slow_to_import_for_test.py").write_text(
        "import time\nfor _ in range(50): time.sleep(0.01)\nvalue = 7\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    clock = Clock(0.25)
    assert clock.run(lambda: __import__("slow_to_import_for_test").value) == (7, None, False)
    assert clock.imports > clock.used


def test_a_coverage_tool_that_looks_on_is_not_interrupted():
    """It may hold a lock: raising there would lock up the whole run."""
    tool = eval("lambda look: look()", {"__name__": "coverage.collector"})
    look = lambda: _may_interrupt(sys._getframe())  # noqa: E731
    assert Clock(5).run(look)[0] is True
    assert Clock(5).run(lambda: tool(look))[0] is False


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
