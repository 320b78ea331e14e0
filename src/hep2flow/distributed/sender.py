"""Between a training and the store: each state is sent, and where it can be written too, while the next epoch trains."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

from hep2flow.store import resume
from hep2flow.store.s3 import Store

if TYPE_CHECKING:
    from hep2flow.learning.files import Files


class Sender:
    """Keeps one state at a time, in a thread of its own.

    prefix: of the training; keep: how many states stay in the store
    saved:  the latest state that is there, None where there is none
    """

    def __init__(self, store: Store, prefix: str, keep: int, saved: resume.Saved | None) -> None:
        self.saved = saved
        self._store, self._prefix, self._keep = store, prefix, keep
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sender")
        self._under_way: Future[resume.Saved | None] | None = None

    def send(self, files: Files) -> None:
        """Write the files, or begin to, and begin to send them where a training can go on from them; waits for those before.

        Raises what those before met.
        """
        self.wait()
        if not files.later:
            files.write()
        self._under_way = self._thread.submit(self._send, files)

    def wait(self) -> None:
        """Until the last state is in the store; raises what its writing or sending met."""
        under_way, self._under_way = self._under_way, None
        if under_way is not None:
            self.saved = under_way.result()

    def _send(self, files: Files) -> resume.Saved | None:
        if files.later:
            files.write()
        if not files.goes_on:
            return self.saved
        point = files.epoch, files.updates
        return resume.save(self._store, self._prefix, files.folder, point, files.fresh, self.saved, self._keep)
