"""Between a worker and the store's notes beside its training, never in the training's way."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from hep2flow.errors import StoreError
from hep2flow.store.training_status import Live

SECONDS = 2.0


class Messenger(threading.Thread):
    """Carries notices to the store at once and progress every two seconds; hears there whether the training shall leave.

    progress: where the training is, the latest only
    leave:    whether it was asked to save its state and end
    preempted: asked every time: whether the machine is being taken away
    A store that is away costs the training nothing: what could not be carried is carried later.
    """

    def __init__(self, live: Live, preempted: Callable[[], bool]) -> None:
        super().__init__(name="messenger", daemon=True)
        self.progress: dict[str, Any] | None = None
        self.leave = threading.Event()
        self._live, self._preempted = live, preempted
        self._notices: deque[str] = deque()
        self._wake, self._over = threading.Event(), False

    def notice(self, text: str) -> None:
        """One line for whoever follows the training."""
        self._notices.append(text)
        self._wake.set()

    def run(self) -> None:
        while not self._over:
            self._wake.wait(SECONDS)
            self._wake.clear()
            self._carry()

    def close(self) -> None:
        """Carry what is left, and end."""
        self._over = True
        self._wake.set()
        self.join()
        self._carry()

    def _carry(self) -> None:
        if self._preempted():
            self.leave.set()
        try:
            while self._notices:
                self._live.notice(self._notices[0])
                self._notices.popleft()
            progress, self.progress = self.progress, None
            if progress is not None:
                self._live.put_progress(progress)
            if self._live.asked_to_leave():
                self.leave.set()
        except StoreError:
            return
