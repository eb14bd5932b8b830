"""What a process says about itself: its memory, and how a run of time-to-95 ended. Imports nothing heavy: the clock runs."""

from __future__ import annotations

import json
import sys
import time


def peak_megabytes() -> float | None:
    """The most memory that this process has ever held, in MB; None where the system does not tell (Windows)."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1)


def report(ready: float, steps: int, accuracy: float, trained: float) -> None:
    """Prints the end of a run. ready: the time at which its training began; trained: seconds in steps, not in validation."""
    about = {"ended": time.time(), "ready": ready, "steps": steps, "accuracy": accuracy, "trained_s": trained}
    print(json.dumps(about | {"peak_mb": peak_megabytes()}))
