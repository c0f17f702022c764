"""The allocator of a process that trains on a CPU."""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # from malloc.h
_KEPT = 2**30


def keep_freed_memory() -> None:
    """Make the C library reuse freed memory instead of returning it to the system.

    Each training step allocates the same large maps again. If freed ones are returned, every page of every map is
    requested, and zeroed, once a step, which can take a fifth of the time. Only glibc has this setting.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None and mallopt(_M_MMAP_THRESHOLD, _KEPT):  # old versions refuse so large a value
            mallopt(_M_TRIM_THRESHOLD, _KEPT)
