"""Outages of the store: a long training waits for ten minutes, and says so once."""

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

RETRY_SECONDS = 600.0
MAX_DELAY_SECONDS = 10.0  # between two attempts
SILENT_ATTEMPTS = 2  # failed ones that are not worth a message
FIRST_FAILURE = "hep2flow.away_since"  # in the context that botocore keeps for a request and its retries

Log = Callable[[str], None]  # called with one line


def log_to_stderr(text: str) -> None:
    """Print one line."""
    print(text, file=sys.stderr, flush=True)


class OutageNotifier:
    """Retries every request that gets no answer, or a 5xx, for ten minutes.

    Logs once that the store is unreachable and once that it is back, whichever thread notices first. botocore's own
    retries cannot do it: all threads of a client share a quota of 500, of which each retry costs 14, so that 35 of them
    are all there are, however many attempts a request is allowed.
    """

    def __init__(self, client: S3Client, endpoint: str, log: Log) -> None:
        self._endpoint, self._log = endpoint, log
        self._lock, self._unreachable = threading.Lock(), False
        client.meta.events.register_first("needs-retry.s3", self._retry_delay)  # type: ignore[arg-type] # may return

    def _retry_delay(self, attempts: int, request_dict: dict[str, Any], **event: Any) -> float | None:
        """Seconds after which botocore sends the request again; None leaves the decision to botocore."""
        if (error := event.get("caught_exception")) is not None:
            failed, reason = isinstance(error, (NoConnectionError, HTTPClientError)), type(error).__name__
        else:
            status = event["response"][0].status_code
            failed, reason = status >= 500, f"answers {status}"
        self._notify(failed, attempts, reason, answered=error is None)
        since = request_dict.setdefault("context", {}).setdefault(FIRST_FAILURE, time.monotonic())
        if not failed or time.monotonic() - since > RETRY_SECONDS:
            return None
        # Jitter: many workers that wait for one store would all come back at once.
        return random.uniform(0.5, 1) * min(0.1 * 2.0 ** min(attempts, 16), MAX_DELAY_SECONDS)

    def _notify(self, failed: bool, attempts: int, reason: str, answered: bool) -> None:
        with self._lock:
            if failed and not self._unreachable and attempts >= SILENT_ATTEMPTS:
                self._unreachable = True
                what = f"is unreachable ({reason}); retrying for about ten minutes"
                self._log(f"the object store {self._endpoint} {what}")
            elif self._unreachable and answered and not failed:
                self._unreachable = False
                self._log(f"the object store {self._endpoint} is back")
