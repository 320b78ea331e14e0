"""Between a training's folder and the store: each state is sent while the next epoch trains."""

from __future__ import annotations

import os
import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from hep2flow.store import resume
from hep2flow.store.s3 import Store


class Sender:
    """Sends one state at a time, in a thread of its own.

    prefix: of the training; keep: how many states stay in the store
    saved:  the latest state that is there, None where there is none
    """

    def __init__(self, store: Store, prefix: str, keep: int, saved: resume.Saved | None) -> None:
        self.saved = saved
        self._store, self._prefix, self._keep = store, prefix, keep
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sender")
        self._under_way: Future[resume.Saved] | None = None

    def send(self, folder: Path, point: tuple[int, int], fresh: list[str]) -> None:
        """Begin to send these files of a folder as they are now; waits until the state before is there.

        point, fresh: as for :func:`hep2flow.store.resume.save`. The files have to be replaced, never written into.
        Raises what the sending of the state before met.
        """
        self.wait()
        leaving = folder.with_name(f"{folder.name}-leaving")
        shutil.rmtree(leaving, ignore_errors=True)
        leaving.mkdir()
        for name in fresh:
            os.link(folder / name, leaving / name)
        self._under_way = self._thread.submit(
            resume.save, self._store, self._prefix, leaving, point, fresh, self.saved, self._keep
        )

    def wait(self) -> None:
        """Until the last state is in the store; raises what its sending met."""
        under_way, self._under_way = self._under_way, None
        if under_way is not None:
            self.saved = under_way.result()
