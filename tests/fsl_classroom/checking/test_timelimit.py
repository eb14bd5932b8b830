"""Endless loops are stopped, wherever they run, and leave nothing behind."""

import signal
import sys
import time
from dataclasses import replace

import pytest
import torch

from fsl_classroom import check
from fsl_classroom.checking import check as desk
from fsl_classroom.checking.timelimit import Clock, _may_interrupt
from tests.fsl_classroom.checking.loops import LOOPS, forever, forever_with_bare_except, here, in_thread


@pytest.mark.parametrize("where", [here, in_thread])
@pytest.mark.parametrize("loop", LOOPS)
def test_endless_loops_are_stopped(loop, where):
    """An alarm stops them in the main thread, the watchdog in other threads."""
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
    """torch.func keeps a stack of transforms. If one stays open, every later operation fails."""

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
    """It may hold a lock, so that an exception there would block the whole run."""
    tool = eval("lambda look: look()", {"__name__": "coverage.collector"})
    look = lambda: _may_interrupt(sys._getframe())  # noqa: E731
    assert Clock(5).run(look)[0] is True
    assert Clock(5).run(lambda: tool(look))[0] is False


def deep(depth=0):
    return deep(depth + 1)


@pytest.mark.parametrize("set_limit", ["sys.setrecursionlimit", "aliased"])
def test_a_recursion_that_never_ends_is_stopped_whatever_the_limit(toy, capsys, set_limit):
    raised = sys.setrecursionlimit  # an alias from before the check escapes its bound; the clock sees how deep it is

    def answer(embeddings, labels, n_way):
        (sys.setrecursionlimit if set_limit == "sys.setrecursionlimit" else raised)(10**8)
        deep()

    before = sys.getrecursionlimit()
    assert check(replace(toy, gradient=(), properties=()), answer) is toy.reference
    assert ("RecursionError" if set_limit == "sys.setrecursionlimit" else "No answer") in capsys.readouterr().out
    assert sys.getrecursionlimit() == before


@pytest.mark.parametrize("where", [here, in_thread])
def test_an_alarm_that_the_answer_ignores_or_clears_is_replaced_by_the_watchdog(where):
    def ignores():
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
        forever()

    def clears():
        signal.setitimer(signal.ITIMER_REAL, 0)
        forever_with_bare_except()

    for answer in (ignores, clears) if where is here else (clears,):
        handler = signal.getsignal(signal.SIGALRM)
        assert where(lambda answer=answer: Clock(0.3).run(answer)) == (None, None, True)
        assert signal.getsignal(signal.SIGALRM) is handler
