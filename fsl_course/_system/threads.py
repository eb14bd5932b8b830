"""How PyTorch's OpenMP threads share the processor with other programs. What starts a kernel or a worker takes it from here.

An OpenMP thread that waits for the others spins on its core. Where a busy program has another core, the thread that all wait for
cannot run. Measured on two cores with one busy neighbour: a step of a prototypical network takes 427 to 948 ms by default and
52 ms with GOMP_SPINCOUNT=2000; on a quiet machine 23 to 27 ms either way. libgomp, which comes with PyTorch's wheels for Linux,
reads the variable when it is loaded, so it must be set before PyTorch is imported. macOS and Windows ignore it.

A container may have a quota of processor time that PyTorch does not see: it would start a thread for every core of the machine.

`eval "$(python -m fsl_course._system.threads)"` sets the variables in a shell. This module needs the standard library only.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

SPINNING = {"GOMP_SPINCOUNT": "2000"}


def cores() -> int:
    """Returns the number of cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def quota(root: Path = Path("/")) -> float | None:
    """Returns the processor time that this process may use, in cores, or None where nothing limits it.

    It is the smallest limit of the process's control groups and of the groups around them, version 1 or 2. root: where proc and
    sys are, for tests.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:  # no Linux
        return None
    return min((limit for line in lines for limit in _limits(root / "sys/fs/cgroup", line)), default=None)


def _limits(mount: Path, line: str) -> Iterator[float]:
    """The limits along one line of /proc/self/cgroup, NUMBER:CONTROLLERS:PATH; version 2 names no controllers."""
    _, controllers, path = line.split(":", 2)
    if controllers and "cpu" not in controllers.split(","):
        return
    top = mount / "cpu" if controllers else mount
    group = top / path.lstrip("/")  # inside a container this path may not exist; its own limit then lies at the top
    for folder in (group, *group.parents[: len(group.parts) - len(top.parts)]):
        try:
            if controllers:
                share, period = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
            else:
                share, period = (folder / "cpu.max").read_text().split()
            limit = int(share) / int(period)
        except (OSError, ValueError, ZeroDivisionError):  # no such file, or "max"
            continue
        if limit > 0:  # version 1 says -1 where there is no limit
            yield limit


def settings(environment: Mapping[str, str] = os.environ, root: Path = Path("/")) -> dict[str, str]:
    """Returns the variables to add to an environment in which PyTorch will run. What is set there already stays.

    The number of threads is among them only where a quota allows fewer than there are cores.
    """
    limit, wanted = quota(root), dict(SPINNING)
    if limit is not None and math.ceil(limit) < cores():
        wanted["OMP_NUM_THREADS"] = str(math.ceil(limit))
    return {name: value for name, value in wanted.items() if name not in environment}


def prepare() -> None:
    """Adds the settings to this process. Has an effect only before PyTorch is imported."""
    os.environ.update(settings())


if __name__ == "__main__":
    print("".join(f"export {name}={value}\n" for name, value in settings().items()), end="")
