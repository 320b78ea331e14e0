"""Patience with a store that is away for a while: a long training must not end for it."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

# boto3 waits up to 20 s between two attempts, at random: about ten minutes in all.
PATIENT_ATTEMPTS = 60
UNWORTHY = 2  # attempts that fail before it is worth a word

Tell = Callable[[str], None]


def to_standard_error(text: str) -> None:
    """One line."""
    print(text, file=sys.stderr, flush=True)


class Absence:
    """Tells once that the store is away and once that it is back, whichever thread meets it first.

    boto3 itself tries again (``retries.total_max_attempts``); this only listens to it.
    """

    def __init__(self, client: S3Client, endpoint: str, tell: Tell) -> None:
        self._endpoint, self._tell = endpoint, tell
        self._lock, self._away = threading.Lock(), False
        client.meta.events.register("needs-retry.s3", self._after_attempt)

    def _after_attempt(
        self, attempts: int, response: Any = None, caught_exception: Exception | None = None, **_: Any
    ) -> None:
        failed = caught_exception is not None or response[0].status_code >= 500
        with self._lock:
            if failed and not self._away and attempts >= UNWORTHY:
                self._away = True
                why = type(caught_exception).__name__ if caught_exception else f"answers {response[0].status_code}"
                self._tell(f"the object store {self._endpoint} is away ({why}); trying again for about ten minutes")
            elif self._away and not failed:
                self._away = False
                self._tell(f"the object store {self._endpoint} is back")
