"""Status files of a running training, ``trainings/{key}/live/``: progress, notices, stop request; deleted at its end."""

import time
from typing import Any

from hep2flow.store.runs import now
from hep2flow.store.s3 import Store


class TrainingStatus:
    """The status files of one training; every method raises StoreError where the store is unreachable."""

    def __init__(self, store: Store, prefix: str) -> None:
        self._store, self._folder = store, f"{prefix}/live"

    def start_attempt(self) -> None:
        """Withdraw a rejection and a stop request of the attempt before."""
        self._store.delete([self._key("refused"), self._key("leave")])

    def clear(self) -> None:
        """Delete all status files: the training is done."""
        self._store.delete_folder(self._folder)

    def reject(self, error: str) -> None:
        """Record an error that the user has to fix before the training can continue."""
        self._store.put_json(self._key("refused"), {"error": error})

    def rejection(self) -> str | None:
        """Return the error of :meth:`reject`; None where there is none."""
        found = self._store.find_json(self._key("refused"))
        return None if found is None else str(found["error"])

    def request_stop(self) -> None:
        """Request that the training saves its state and stops early."""
        self._store.put_json(self._key("leave"), {"asked": now().isoformat()})

    def stop_requested(self) -> bool:
        """Whether :meth:`request_stop` was called in this attempt."""
        return self._store.exists(self._key("leave"))

    def put_progress(self, progress: dict[str, Any]) -> None:
        """Replace the progress."""
        self._store.put_json(self._key("progress"), progress)

    def progress(self) -> dict[str, Any] | None:
        """Return the last progress; None before the first batch and after the end."""
        return self._store.find_json(self._key("progress"))

    def add_notice(self, text: str) -> None:
        """Add one line for whoever watches the training, and for its manifest."""
        self._store.put_json(self._key(f"notices/{time.time_ns():020d}"), {"at": now().isoformat(), "text": text})

    def notices(self, after: int = 0) -> list[dict[str, str]]:
        """Return all notices but the first ``after``, the oldest first, each with its time ``at``, UTC, and ``text``."""
        keys = [item.key for item in self._store.list_objects(f"{self._folder}/notices")]
        return [self._store.get_json(key) for key in keys[after:]]

    def _key(self, name: str) -> str:
        return f"{self._folder}/{name}.json"
