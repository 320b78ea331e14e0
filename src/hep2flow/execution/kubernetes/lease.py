"""The lease of a job on a cluster: it ends itself where nobody follows it any more, so that no GPU is held for nobody."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from pydantic import ValidationError

from hep2flow.errors import UserError
from hep2flow.execution.job_spec import Specification
from hep2flow.store import layout
from hep2flow.store.runs import StageRecord, now
from hep2flow.store.s3 import Store

LOOK_SECONDS = 30.0
LOOKS = 3  # in a row: after an absence of the store its step needs a moment to beat again
LEAVE_SECONDS = 120.0


@contextmanager
def leased(store: Store, specification: Specification) -> Iterator[threading.Event]:
    """Inside the block this process gets SIGTERM, and some time to save, once its step gives no sign of life any more.

    Yields what is set then.
    """
    over, expired = threading.Event(), threading.Event()

    def watch() -> None:
        looks = 0
        while looks < LOOKS:
            if over.wait(LOOK_SECONDS):
                return
            looks = looks + 1 if is_abandoned(store, specification) else 0
        print(
            f"hep2flow: the step of run {specification.run_id} that follows this job gives no sign of life; the job ends",
            file=sys.stderr,
            flush=True,
        )
        expired.set()
        os.kill(os.getpid(), signal.SIGTERM)
        if not over.wait(LEAVE_SECONDS):
            os._exit(0)  # a failure would be begun again, and ask for the GPUs once more

    threading.Thread(target=watch, name="lease", daemon=True).start()
    try:
        yield expired
    finally:
        over.set()


def is_abandoned(store: Store, specification: Specification) -> bool:
    """Whether the step ended, or its heartbeat is older than 3 minutes. False where that cannot be known."""
    key = layout.stage_record(specification.run_id, specification.stage, specification.recipe.name)
    try:
        record = StageRecord.model_validate(store.get_json(key))
    except (UserError, ValidationError):  # the store is away, or nobody keeps a record: it was started by hand
        return False
    return record.told_status(now()) != "running"
