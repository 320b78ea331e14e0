"""Background thread of a worker: uploads progress and notices, polls for a stop request."""

import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from hep2flow.errors import StoreError
from hep2flow.store.training_status import TrainingStatus

SYNC_SECONDS = 2.0


class StatusReporter(threading.Thread):
    """Uploads notices at once and progress every two seconds; an unreachable store only delays both."""

    def __init__(self, status: TrainingStatus, preempted: Callable[[], bool]) -> None:
        """``preempted`` is called at every sync: whether this machine is about to be taken away."""
        super().__init__(name="status-reporter", daemon=True)
        self.progress: dict[str, Any] | None = None  # the latest that is not yet uploaded
        self.stop_requested = threading.Event()  # the training shall save its state and stop
        self._status, self._preempted = status, preempted
        self._notices: deque[str] = deque()
        self._wake, self._closed = threading.Event(), False

    def notice(self, text: str) -> None:
        """Queue one line for whoever follows the training."""
        self._notices.append(text)
        self._wake.set()

    def run(self) -> None:
        """Sync until closed."""
        while not self._closed:
            self._wake.wait(SYNC_SECONDS)
            self._wake.clear()
            self._sync()

    def close(self) -> None:
        """Upload what is queued, and end the thread."""
        self._closed = True
        self._wake.set()
        self.join()
        self._sync()

    def _sync(self) -> None:
        if self._preempted():
            self.stop_requested.set()
        with suppress(StoreError):
            while self._notices:
                self._status.add_notice(self._notices[0])
                self._notices.popleft()  # only once it is uploaded
            progress, self.progress = self.progress, None
            if progress is not None:
                self._status.put_progress(progress)
            if self._status.stop_requested():
                self.stop_requested.set()
