"""What a process reports: its peak memory, and the end of a run of time-to-95. Heavy imports here would count as time."""

from __future__ import annotations

import json
import sys
import time


def peak_megabytes() -> float | None:
    """Returns the peak memory of this process in MB, or None if the system does not tell (Windows)."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1)


def report(ready: float, steps: int, accuracy: float, trained: float) -> None:
    """Prints the end of a run as one line of JSON.

    ready: clock time at which training began; trained: seconds of training steps, without validation
    """
    about = {"ended": time.time(), "ready": ready, "steps": steps, "accuracy": accuracy, "trained_s": trained}
    print(json.dumps(about | {"peak_mb": peak_megabytes()}))
