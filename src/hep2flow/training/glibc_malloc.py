"""How a training on a CPU takes its memory from the system."""

from __future__ import annotations

import ctypes

TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD = -1, -2, -3  # of malloc.h
KEPT_BYTES = 2**31 - 1
PAD_BYTES = 64 * 2**20
LARGE_BYTES = 32 * 2**20  # the most that glibc takes


def keep_freed_memory() -> None:
    """What an update frees is there for the next one, of this process, until it ends.

    glibc would give much of it back, and the system clear every page of it again: 2 to 5 % of an update's CPU seconds.
    Where the C library has no ``mallopt(3)``, nothing happens.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for parameter, value in ((TRIM_THRESHOLD, KEPT_BYTES), (TOP_PAD, PAD_BYTES), (MMAP_THRESHOLD, LARGE_BYTES)):
            mallopt(parameter, value)
