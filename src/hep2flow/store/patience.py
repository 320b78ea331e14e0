"""Patience with a store that is away for a while: a long training must not end for it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from hep2flow.errors import StoreError
from hep2flow.store.faults import NotThereError

PATIENCE_SECONDS = 600.0
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0

Result = TypeVar("Result")


def patiently(action: Callable[[], Result], tell: Callable[[str], None], patience: float = PATIENCE_SECONDS) -> Result:
    """Do something with the store, again and again with longer pauses, until it works or the patience is at its end.

    tell: told once that the store is away, and once that it is back
    Raises the last StoreError after ``patience`` seconds, and at once where an object is not there.
    """
    deadline, pause, away = time.monotonic() + patience, FIRST_PAUSE, False
    while True:
        try:
            result = action()
        except NotThereError:
            raise
        except StoreError as error:
            if time.monotonic() + pause > deadline:
                raise
            if not away:
                tell(f"the object store is away, trying again for {patience / 60:.0f} minutes: {error}")
            away = True
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
        else:
            if away:
                tell("the object store is back")
            return result
