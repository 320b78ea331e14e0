"""Watches for room for more workers while a training runs with fewer than it may have."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SECONDS = 3.0
LOOKS = 3  # room that is there at so many looks in a row is there to stay


@contextmanager
def watched(room: Callable[[], int], grow: Callable[[int], None]) -> Iterator[None]:
    """Calls ``grow`` with the workers there is room for, once, as soon as ``room`` keeps saying more than none."""
    over = threading.Event()

    def watch() -> None:
        looks = 0
        while not over.wait(SECONDS):
            more = room()
            looks = looks + 1 if more > 0 else 0
            if looks == LOOKS:
                grow(more)
                return

    watcher = threading.Thread(target=watch, name="growth", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
