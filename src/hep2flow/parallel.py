"""Work spread over this machine's cores: in order, and with no more in memory than what is in progress."""

import math
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from pathlib import Path
from typing import TypeVar

from hep2flow.errors import UserError

Item = TypeVar("Item")
Result = TypeVar("Result")

FEW = 4096  # items: fewer are done before other processes have started
MAX_PROCESSES = 8  # each takes some hundred MiB, and one alone collects what they make
CHUNK_ITEMS, CHUNK_BYTES = 256, 2**20
CPU_LIMIT = Path("/sys/fs/cgroup/cpu.max")  # in a container that has one


def parallel_map(
    work: Callable[[Item], Result], items: Iterable[Item], count: int, size: Callable[[Item], int]
) -> Iterator[Result]:
    """Apply ``work`` to every item, in their order; in processes of their own where there are many.

    Not joblib (1.6): its generator takes items without bound while the caller is slow, and its workers outlive a killed
    parent and an abandoned generator.

    ``work``, the ``count`` items and the results can be pickled; ``size`` returns the bytes of an item.

    Raises:
        UserError: One of the processes was killed.
        Exception: Whatever ``work`` raises.
    """
    processes = min(cpu_count(), MAX_PROCESSES)
    if count < FEW or processes == 1:
        yield from map(work, items)
        return
    pending: deque[Future[list[Result]]] = deque()
    # Not forked: this process has threads.
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), _exit_with_parent) as pool:
        try:
            for chunk in _chunks(items, size):
                pending.append(_submit(pool, work, chunk))
                if len(pending) > 2 * processes:
                    yield from pending.popleft().result()
            while pending:
                yield from pending.popleft().result()
        except BrokenProcessPool as error:
            raise UserError(
                "a process that worked on the cells was killed, as the system does where memory is short; "
                "give this machine or its container more memory, and run it again"
            ) from error
        finally:
            for future in pending:
                future.cancel()


def cpu_count() -> int:
    """Return the cores that this process may use: those it is bound to, or fewer where its container has a limit."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota, _, period = (CPU_LIMIT.read_text() if CPU_LIMIT.exists() else "max").strip().partition(" ")
    return bound if quota == "max" else min(bound, math.ceil(int(quota) / int(period)))


def _chunks(items: Iterable[Item], size: Callable[[Item], int]) -> Iterator[list[Item]]:
    chunk: list[Item] = []
    total = 0
    for item in items:
        chunk.append(item)
        total += size(item)
        if len(chunk) == CHUNK_ITEMS or total >= CHUNK_BYTES:
            yield chunk
            chunk, total = [], 0
    if chunk:
        yield chunk


def _submit(pool: ProcessPoolExecutor, work: Callable[[Item], Result], chunk: list[Item]) -> Future[list[Result]]:
    # A process that is started here inherits the mask and never sees Ctrl-C, which is for its parent.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return pool.submit(_work_on, work, chunk)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work_on(work: Callable[[Item], Result], chunk: list[Item]) -> list[Result]:
    return [work(item) for item in chunk]


def _exit_with_parent() -> None:
    """A parent that is killed cannot end its processes, and they would wait for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "called in a process of the pool"
    sentinel = parent.sentinel

    def watch() -> None:
        wait([sentinel])
        os._exit(1)

    threading.Thread(target=watch, name="parent", daemon=True).start()
