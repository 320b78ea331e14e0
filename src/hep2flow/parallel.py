"""Work spread over this machine's cores: in order, and with no more in memory than what is under way."""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import wait
from pathlib import Path
from typing import TypeVar

from hep2flow.errors import UserError

Item = TypeVar("Item")
Result = TypeVar("Result")

FEW = 4096  # items: fewer are done before other processes have started
MOST = 8  # processes: each takes some hundred MiB, and one alone collects what they make
CHUNK_ITEMS, CHUNK_BYTES = 256, 2**20
LIMIT = Path("/sys/fs/cgroup/cpu.max")  # in a container, where it has one


def on_all_cores(
    work: Callable[[Item], Result], items: Iterable[Item], count: int, size: Callable[[Item], int]
) -> Iterator[Result]:
    """``work`` of every item, in their order; in processes of their own where there are many.

    work, items, results: can be pickled
    count: how many items there are; size: bytes of one
    Raises what ``work`` raises; UserError where one of the processes was killed.
    """
    processes = min(cores(), MOST)
    if count < FEW or processes == 1:
        yield from map(work, items)
        return
    under_way: deque[Future[list[Result]]] = deque()
    # Not forked: this process has threads.
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), _end_with_parent) as pool:
        try:
            for chunk in _chunks(items, size):
                with _interrupts_later():
                    under_way.append(pool.submit(_each, work, chunk))
                if len(under_way) > 2 * processes:
                    yield from under_way.popleft().result()
            while under_way:
                yield from under_way.popleft().result()
        except BrokenProcessPool as error:
            raise UserError(
                "a process that worked on the cells was killed, as the system does where memory is short; "
                "give this machine or its container more memory, and run it again"
            ) from error
        finally:
            for future in under_way:
                future.cancel()


def cores() -> int:
    """Cores that this process may use: those it is bound to, or fewer where its container has a limit."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota, _, period = (LIMIT.read_text() if LIMIT.exists() else "max").strip().partition(" ")
    return bound if quota == "max" else min(bound, math.ceil(int(quota) / int(period)))


def _each(work: Callable[[Item], Result], chunk: list[Item]) -> list[Result]:
    return [work(item) for item in chunk]


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


@contextmanager
def _interrupts_later() -> Iterator[None]:
    """Processes started inside the block never see Ctrl-C: it is for their parent, which ends them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_with_parent() -> None:
    """A parent that is killed cannot end its processes, and they would wait for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "called in a process of the pool"
    sentinel = parent.sentinel

    def watch() -> None:
        wait([sentinel])
        os._exit(1)

    threading.Thread(target=watch, name="parent", daemon=True).start()
