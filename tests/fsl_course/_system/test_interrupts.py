import os
import signal
import threading
import time

import pytest

from fsl_course._system.interrupts import gentle_interrupt

BOTH = (signal.SIGINT, signal.SIGTERM)


def send(number: int) -> None:
    os.kill(os.getpid(), number)
    time.sleep(0.01)  # a handler runs between two lines of Python


@pytest.mark.parametrize("number", BOTH)
def test_a_request_to_end_sets_the_event_and_the_old_handlers_come_back(number):
    before = [signal.getsignal(n) for n in BOTH]
    with gentle_interrupt() as asked:
        assert not asked.is_set()
        send(number)
        assert asked.is_set()
    assert [signal.getsignal(n) for n in BOTH] == before


def test_the_second_ctrl_c_interrupts_at_once():
    before = [signal.getsignal(n) for n in BOTH]
    with pytest.raises(KeyboardInterrupt), gentle_interrupt():
        [send(signal.SIGINT) for _ in range(2)]
    assert [signal.getsignal(n) for n in BOTH] == before


def test_sigterm_never_interrupts_at_once():
    """torchrun and job schedulers send it more than once, also after a Ctrl-C, and then wait."""
    with gentle_interrupt() as asked:
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
            send(number)
        assert asked.is_set()


def test_other_threads_leave_signals_alone():
    found = []

    def work() -> None:
        with gentle_interrupt() as asked:
            found.append((signal.getsignal(signal.SIGINT), asked.is_set()))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [(signal.getsignal(signal.SIGINT), False)]
