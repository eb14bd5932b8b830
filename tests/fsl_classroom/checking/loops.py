"""Code that does not end by itself, and the two places where a test runs it."""

import contextlib
import threading


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
    """Returns the result of a function that runs in a thread of its own, or raises its exception."""
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
