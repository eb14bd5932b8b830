"""Shows the progress of a training run: a bar in a terminal, a growing curve in a notebook."""

import sys
import time
from collections.abc import Sequence

from tqdm import tqdm

Numbers, Rows = Sequence[float], Sequence[tuple[int, float, float]]

_EVERY_SECONDS = 4.0  # between two drawings of the curve, each of which takes about 0.2 s
_BAR_SECONDS, _LOG_SECONDS = 0.5, 30.0  # between two updates of the bar in a terminal, and in a file
# the elapsed and the remaining time come first, because a narrow terminal cuts off the end
_BAR = "{n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}] {percentage:3.0f}%|{bar:10}|"


class LiveProgress:
    """Shows step, loss, accuracy and the chance line, as a context manager. quiet=True shows nothing.

    In a notebook the last picture stays as the output of the cell. It shows no times, so that repeated runs look the same.
    """

    def __init__(self, steps: int, start: int, chance: float | None, *, quiet: bool = False) -> None:
        self.steps, self.chance, self.quiet = steps, chance, quiet
        self._notebook, self._bar = False, None
        if not quiet:
            from fsl_course import figures  # here, because it imports matplotlib, which a quiet run does not need

            self._notebook = figures.in_notebook()
        if not quiet and not self._notebook:
            # a log file keeps every line, so two a minute are enough; smoothing, because validation makes single steps slow
            pause = _BAR_SECONDS if sys.stderr.isatty() else _LOG_SECONDS
            self._bar = tqdm(
                total=steps, initial=start, unit="step", mininterval=pause, maxinterval=max(pause, 10), smoothing=0.05,
                dynamic_ncols=True, bar_format=_BAR,
            )  # fmt: skip
        self._handle = None
        self._began, self._first, self._drawn = time.monotonic(), start, 0.0

    def update(self, done: int, loss: Numbers, accuracy: Numbers, validation: Rows) -> None:
        """Shows the current state. done: steps finished so far; the rest as in History."""
        if self._bar is not None:
            chance = "" if self.chance is None else f" (chance {self.chance:.2f})"
            shown = {"loss": f"{_recent(loss):.3f}"}
            if validation:
                shown["val"] = f"{validation[-1][1]:.3f}"
            if accuracy:
                shown["accuracy"] = f"{_recent(accuracy):.3f}{chance}"
            self._bar.set_postfix(shown, refresh=False)
            self._bar.update(done - self._bar.n)
        elif self._notebook and time.monotonic() - self._drawn > _EVERY_SECONDS:
            self._draw(done, loss, accuracy, validation, final=False)

    def finish(self, done: int, loss: Numbers, accuracy: Numbers, validation: Rows) -> None:
        """Draws the last picture, without times."""
        if self._notebook:
            self._draw(done, loss, accuracy, validation, final=True)

    def _draw(self, done: int, loss: Numbers, accuracy: Numbers, validation: Rows, *, final: bool) -> None:
        from IPython.display import HTML, display

        from fsl_course import figures

        figure = figures.training_curve(loss, accuracy, validation, chance=self.chance, steps=self.steps)
        words = f"step {done} of {self.steps}, loss {_recent(loss):.3f}" if loss else f"step {done} of {self.steps}"
        if accuracy:
            words += f", accuracy {_recent(accuracy):.3f}"
        if self.chance is not None:
            words += f", chance {self.chance:.2f}"
        picture = figures.to_html(figure, f"Training curve: {words}.")
        figures.plt.close(figure)
        if not final:
            left = (time.monotonic() - self._began) / max(1, done - self._first) * (self.steps - done)
            words += f", about {left:.0f} s left"
        content = HTML(f"<div>{words}</div>{picture}")
        if self._handle is None:
            self._handle = display(content, display_id=True)
        else:
            self._handle.update(content)
        self._drawn = time.monotonic()

    def __enter__(self) -> "LiveProgress":
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.close()


def _recent(values: Numbers, window: int = 20) -> float:
    tail = values[-window:]
    return sum(tail) / len(tail)
