"""Patience with a store that is away for a while: a long training must not end for it."""

from __future__ import annotations

import random
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ConnectionError as NoConnectionError
from botocore.exceptions import HTTPClientError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

PATIENCE_SECONDS = 600.0
LONGEST_PAUSE = 10.0  # between two attempts
UNWORTHY = 2  # attempts that fail before it is worth a word
SINCE = "hep2flow.away_since"  # in the context that botocore keeps for a request and its repetitions

Tell = Callable[[str], None]


def to_standard_error(text: str) -> None:
    """One line."""
    print(text, file=sys.stderr, flush=True)


class Patience:
    """Repeats every request that gets no answer, or a 5xx, for ten minutes.

    Tells once that the store is away and once that it is back, whichever thread meets it first. botocore's own repetition
    cannot do it: all threads of a client share a quota of 500, of which each repetition costs 14, so that 35 of them are
    all there are, however many attempts a request is allowed.
    """

    def __init__(self, client: S3Client, endpoint: str, tell: Tell) -> None:
        self._endpoint, self._tell = endpoint, tell
        self._lock, self._away = threading.Lock(), False
        client.meta.events.register_first("needs-retry.s3", self._pause_after)  # type: ignore[arg-type] # it may answer

    def _pause_after(
        self,
        attempts: int,
        request_dict: dict[str, Any],
        response: Any = None,
        caught_exception: Exception | None = None,
        **_: Any,
    ) -> float | None:
        """Seconds after which botocore sends the request again; None where that is not for us to say."""
        if caught_exception is not None:
            failed = isinstance(caught_exception, (NoConnectionError, HTTPClientError))
        else:
            failed = response[0].status_code >= 500
        self._note(failed, attempts, caught_exception, response)
        since = request_dict.setdefault("context", {}).setdefault(SINCE, time.monotonic())
        if not failed or time.monotonic() - since > PATIENCE_SECONDS:
            return None
        # At random: many workers that wait for one store would all come back at once.
        return random.uniform(0.5, 1) * min(0.1 * 2.0 ** min(attempts, 16), LONGEST_PAUSE)

    def _note(self, failed: bool, attempts: int, caught_exception: Exception | None, response: Any) -> None:
        with self._lock:
            if failed and not self._away and attempts >= UNWORTHY:
                self._away = True
                why = type(caught_exception).__name__ if caught_exception else f"answers {response[0].status_code}"
                self._tell(f"the object store {self._endpoint} is away ({why}); trying again for about ten minutes")
            elif self._away and not failed and caught_exception is None:
                self._away = False
                self._tell(f"the object store {self._endpoint} is back")
