"""How a command behaves in a terminal: its errors are one line, its exit status is a number that scripts can rely on."""

from __future__ import annotations

import argparse
import os
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress

from fsl_course.cli.options import Parser, read

_NO_MEMORY = "the memory of this machine is too small for these settings."


def in_words(error: Exception) -> str | None:
    """The error as one line. Returns None for a RuntimeError of PyTorch that points to a mistake in this program."""
    if isinstance(error, RuntimeError):
        from fsl_course.weights.checkpoints import CheckpointError

        if not isinstance(error, CheckpointError):  # PyTorch has no error type of its own for "out of memory" on a CPU
            return _NO_MEMORY if re.search("out of memory|allocate memory", str(error)) else None
    if isinstance(error, OSError) and error.strerror:
        place = "" if error.filename is None else f"{error.filename}: "
        return f"{place}{error.strerror}. Check the name, the room on the disk, and what you may read and write there."
    return re.sub(r"\s*\n\s*", " ", str(error)) or _NO_MEMORY


def _output_closed() -> int:
    """The reader of our output has gone (for example `| head`). The rest of the output is dropped without an error."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 141  # the status that a shell reports after SIGPIPE


def exit_status(work: Callable[[], int]) -> int:
    """Does the work and returns its status, or the status of what stopped it.

    1: something is wrong, said in one line. 130: Ctrl-C. 141: nobody reads the output any more.
    """
    before = warnings.formatwarning
    warnings.formatwarning = lambda message, *rest, **more: f"note: {message}\n"
    try:
        if sys.stdout is None:
            raise OSError("standard output is closed, so that nothing can be printed: open it, e.g. with > FILE.")
        status = work()
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        return _output_closed()
    except (ValueError, OSError, FloatingPointError, MemoryError, RuntimeError, ImportError) as error:
        words = in_words(error)
        if words is None:
            raise
        print(f"error: {words}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as stopped:
        print(" ".join(["Stopped.", *map(str, stopped.args)]), file=sys.stderr)
        return 130
    finally:
        warnings.formatwarning = before


def run_command(
    parser: Parser,
    commands: argparse._SubParsersAction,
    argv: Sequence[str] | None,
    run: Callable[[argparse.Namespace], int],
) -> int:
    """Reads the command line (sys.argv where argv is None) and runs the command on it. Without a command, it prints the help.

    commands: what `parser.add_subparsers` returned. Returns an exit status, see `exit_status`; ends the process with status 2
    where the command line cannot be read.
    """

    def work() -> int:
        arguments = read(parser, commands, sys.argv[1:] if argv is None else argv)
        if arguments.command is None:
            parser.print_help()
            return 0
        return run(arguments)

    return exit_status(work)
