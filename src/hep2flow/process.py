"""How a process of hep2flow ends: on SIGTERM it saves or cleans up first."""

import atexit
import gc
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

EXIT_TERMINATED = 143

_callbacks: list[Callable[[], None]] = []


class TerminatedError(SystemExit):
    """This process got SIGTERM."""

    def __init__(self) -> None:
        super().__init__(EXIT_TERMINATED)


@contextmanager
def before_termination(callback: Callable[[], None]) -> Iterator[None]:
    """Inside the block SIGTERM first calls ``callback``, in a thread, before anything is saved or cleaned up.

    For a last message that must not wait: where a run is terminated, its processes are killed about a second later.
    """
    _callbacks.append(callback)
    try:
        yield
    finally:
        _callbacks.remove(callback)


@contextmanager
def raise_on_sigterm() -> Iterator[None]:
    """Inside the block SIGTERM raises :class:`TerminatedError`, so that everything is cleaned up on the way out."""

    def handle(number: int, frame: Any) -> None:
        threading.Thread(target=_run_callbacks, name="last-message", daemon=True).start()
        raise TerminatedError

    with handling(signal.SIGTERM, handle):
        yield


@contextmanager
def on_sigterm(action: Callable[[], None]) -> Iterator[threading.Event]:
    """Inside the block SIGTERM calls ``action`` in a thread of its own, once; yields an event that is set then.

    A second SIGTERM ends the process at once. In a thread that may not handle signals SIGTERM keeps its handler.
    """
    terminated = threading.Event()

    def act() -> None:
        _run_callbacks()
        action()

    def handle(number: int, frame: Any) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        terminated.set()
        threading.Thread(target=act, name="termination", daemon=True).start()

    with handling(signal.SIGTERM, handle):
        yield terminated


@contextmanager
def handling(number: signal.Signals, handler: Callable[[int, Any], None]) -> Iterator[None]:
    """Inside the block this handles the signal."""
    if threading.current_thread() is not threading.main_thread():  # only that one may handle signals
        yield
        return
    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)


@contextmanager
def in_background(work: Callable[[threading.Event], None], name: str, patience: float | None = None) -> Iterator[None]:
    """Call ``work`` in a thread while the block runs; its event is set then, and the thread has so many seconds to end."""
    over = threading.Event()
    thread = threading.Thread(target=work, args=(over,), name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(patience)


def _run_callbacks() -> None:
    for callback in list(_callbacks):
        with suppress(Exception):  # only a message; the process ends in any case
            callback()


def skip_last_collection() -> None:
    """Skip Python's last search for unreachable cycles: 16 % of the CPU time of a process that imports kfp and torch.

    Functions registered for the exit, and open files, are no garbage: they are run and closed all the same.
    """
    atexit.register(gc.freeze)
