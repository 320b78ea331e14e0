"""How a training on a CPU gets its memory from the system."""

import ctypes

# Of malloc.h: M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD, and the values for them.
OPTIONS = {-1: 2**31 - 1, -2: 64 * 2**20, -3: 32 * 2**20}  # the last is the greatest that glibc accepts


def keep_freed_memory() -> None:
    """Let this process keep the memory that an update frees for the next one; nothing where mallopt(3) is missing.

    glibc would give much of it back, and the system would clear every page of it again: system time worth 9 % of a laptop
    recipe's CPU seconds (median of five pairs on a busy machine; benchmarks/bench_memory.py).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for option, value in OPTIONS.items():
            mallopt(option, value)
