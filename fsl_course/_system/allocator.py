"""Keeps freed memory inside the process, because giving it back to the system and fetching it again page by page is slow."""

import ctypes
import sys
from functools import cache

# numbers of mallopt(3) in glibc's malloc.h: how much free memory at the top of the heap is given back, how much more than
# asked for is fetched at once, and how many blocks may come straight from the system
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4


@cache
def keep_memory() -> bool:
    """Lets this process keep the memory that tensors free. Returns True where that is possible: on Linux with glibc.

    One call is enough; further calls do nothing. `fit` and the command line call it. `evaluate` does not: the caller decides.
    By default glibc returns every large block to the system when it is freed, and the system hands it out again as zeroed pages
    at the first touch. Conv4 forward and backward on 360 pictures took 0.45 s before and 0.26 s after (one thread; see the field
    keep_memory_brings of `python -m tools.benchmark --json --only prototypical-step`).
    The price: the process keeps its largest size until it ends.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library, e.g. musl
        return False
    return all(
        mallopt(name, value) for name, value in ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, 2**26))
    )
