"""How a process of hep2flow ends: SIGTERM saves or cleans up first."""

from __future__ import annotations

import atexit
import gc
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

EXIT_TERMINATED = 143


_announcements: list[Callable[[], None]] = []


class TerminatedError(SystemExit):
    """This process was asked to end by SIGTERM."""

    def __init__(self) -> None:
        super().__init__(EXIT_TERMINATED)


@contextmanager
def announced(act: Callable[[], None]) -> Iterator[None]:
    """Inside the block SIGTERM first calls ``act``, in a thread, before anything is saved or cleaned up.

    For a last word that must not wait: where a run is terminated, its processes are killed about a second later.
    """
    _announcements.append(act)
    try:
        yield
    finally:
        _announcements.remove(act)


def _announce() -> None:
    for act in list(_announcements):
        with suppress(Exception):  # only a word; the process ends, and tells how, in any case
            act()


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """Inside the block SIGTERM raises :class:`TerminatedError`, so that everything is cleaned up on the way out."""

    def end(number: int, frame: Any) -> None:
        threading.Thread(target=_announce, name="last-word", daemon=True).start()
        raise TerminatedError

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def on_sigterm(act: Callable[[], None]) -> Iterator[threading.Event]:
    """Inside the block SIGTERM calls ``act`` in a thread of its own, once; yields what is set then.

    A second SIGTERM ends the process at once. In a thread that may not handle signals SIGTERM stays what it was.
    """
    terminated = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield terminated
        return

    def announce_and_act() -> None:
        _announce()
        act()

    def handle(number: int, frame: Any) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        terminated.set()
        threading.Thread(target=announce_and_act, name="termination", daemon=True).start()

    before = signal.signal(signal.SIGTERM, handle)
    try:
        yield terminated
    finally:
        signal.signal(signal.SIGTERM, before)


def skip_last_collection() -> None:
    """Once this process ends, Python looks for no more unreachable cycles: of half a second that a step takes, a tenth.

    What has to be done at the end is done all the same: functions registered for it, and open files, are not garbage.
    """
    atexit.register(gc.freeze)
