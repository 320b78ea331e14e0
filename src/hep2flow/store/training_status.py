"""What a running training and those who wait for it tell each other: ``trainings/{key}/live/``, gone when it is done."""

from __future__ import annotations

import time
from datetime import datetime, timezone
from typing import Any

from hep2flow.store.errors import NotThereError
from hep2flow.store.s3 import Store


class Live:
    """The notes beside one training; every method raises StoreError where the store is away."""

    def __init__(self, store: Store, prefix: str) -> None:
        self._store, self._folder = store, f"{prefix}/live"

    def begin(self) -> None:
        """Before an attempt: what was refused may have been mended, and who was asked to leave has left."""
        self._store.delete([self._key("refused"), self._key("leave")])

    def end(self) -> None:
        """The training is done: forget all notes."""
        self._store.delete_folder(self._folder)

    def refuse(self, error: str) -> None:
        """Why the training cannot go on before the user has mended something."""
        self._store.put_json(self._key("refused"), {"error": error})

    def refusal(self) -> str | None:
        """What :meth:`refuse` said; None where nothing is known."""
        told = self._get("refused")
        return None if told is None else str(told["error"])

    def ask_to_leave(self) -> None:
        """Ask the training to save its state and end."""
        self._store.put_json(self._key("leave"), {"asked": _now()})

    def asked_to_leave(self) -> bool:
        """Whether somebody did."""
        return self._store.exists(self._key("leave"))

    def put_progress(self, progress: dict[str, Any]) -> None:
        """Where the training is."""
        self._store.put_json(self._key("progress"), progress)

    def progress(self) -> dict[str, Any] | None:
        """Where the training is, as it last said; None before its first batch and after its end."""
        return self._get("progress")

    def notice(self, text: str) -> None:
        """One line for whoever follows the training, and for its manifest."""
        self._store.put_json(self._key(f"notices/{time.time_ns():020d}"), {"at": _now(), "text": text})

    def notices(self, after: int = 0) -> list[dict[str, str]]:
        """All notices but the first ``after``, the oldest first, each with its time ``at``, UTC, and its ``text``."""
        keys = [item.key for item in self._store.list(f"{self._folder}/notices")]
        return [self._store.get_json(key) for key in keys[after:]]

    def _key(self, name: str) -> str:
        return f"{self._folder}/{name}.json"

    def _get(self, name: str) -> dict[str, Any] | None:
        try:
            return dict(self._store.get_json(self._key(name)))
        except NotThereError:
            return None


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
