"""Decides when a run of training is saved: at its start, at its end, and in between."""

import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fsl_course.training.distributed import Processes
from fsl_course.training.run_state import History, RunState
from fsl_course.weights.checkpoints import CheckpointError

_SECONDS = 300.0  # a slow run is saved at least this often, whatever save_every says
_SHARE = 10  # a fast run trains this many times as long as it saves: its history grows, up to 0.2 s for 60 000 steps


class Saver:
    """Saves a run to a file, every so many steps. Without a file it only counts the seconds of the run."""

    def __init__(self, run: RunState, path: str | Path | None, every: int) -> None:
        self._run, self._every = run, every
        self.path = None if path is None else Path(path)
        self._cost = 0.0  # seconds that the last save took

    @contextmanager
    def begun(self, group: Processes) -> Iterator[History]:
        """Goes on from the file if it exists, in all processes; otherwise writes it, or fails. Yields the history of the run.

        If another process ends, and the block therefore raises ConnectionError, saves once more and says where to go on.
        """
        run = self._run
        if self.path is not None and self.path.exists():
            run.resume(self.path)
        run.spread(group)
        self._earlier = run.history.seconds  # of earlier parts of the run
        self._began = self._saved = time.monotonic()
        if run.done == 0:
            self.save()
        try:
            yield run.history
        except ConnectionError as error:
            run.learner.eval()
            written = self.save(required=False)
            where = f" The state after step {run.done} is in {self.path}: start again to go on." if written else ""
            raise ConnectionError(f"{error}{where}") from error

    def save(self, *, required: bool = True) -> bool:
        """Writes the state. Returns True if a file was written. A failure is a CheckpointError, or a warning if not required."""
        start = time.monotonic()
        self._run.history.seconds = self._earlier + start - self._began
        if self.path is None:
            return False
        try:
            self._run.save(self.path)
        except CheckpointError as error:
            if required:
                raise
            warnings.warn(f"{error} Training goes on without it.", stacklevel=2)
            return False
        finally:
            self._saved = time.monotonic()
            self._cost = self._saved - start
        return True

    def after_step(self) -> None:
        """Saves if it is time to."""
        since = time.monotonic() - self._saved
        if (self._run.done % self._every == 0 and since > _SHARE * self._cost) or since > _SECONDS:
            self.save(required=False)
