"""The lease of a job on a cluster: one that no step watches any more ends itself and frees its GPUs."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from pydantic import ValidationError

from hep2flow.errors import UserError
from hep2flow.execution.job_spec import JobSpec
from hep2flow.process import in_background
from hep2flow.store import layout
from hep2flow.store.outage import log_to_stderr
from hep2flow.store.runs import StageRecord, now
from hep2flow.store.s3 import Store

CHECK_SECONDS = 30.0
CHECKS = 3  # in a row: after an outage of the store the step needs a moment for its next heartbeat
SAVE_SECONDS = 120.0


@contextmanager
def job_lease(store: Store, spec: JobSpec) -> Iterator[threading.Event]:
    """Send SIGTERM to this process, with time to save, once the step's heartbeat is too old; the event is set then."""
    expired = threading.Event()

    def watch(over: threading.Event) -> None:
        abandoned = 0
        while abandoned < CHECKS:
            if over.wait(CHECK_SECONDS):
                return
            abandoned = abandoned + 1 if is_abandoned(store, spec) else 0
        silent = f"the step of run {spec.run_id} that watches this job gives no sign of life"
        log_to_stderr(f"hep2flow: {silent}; the job ends")
        expired.set()
        os.kill(os.getpid(), signal.SIGTERM)
        if not over.wait(SAVE_SECONDS):
            os._exit(0)  # KubeRay would start a failed job again, with the same GPUs

    with in_background(watch, "lease", 0):  # not waited for: the store may be unreachable
        yield expired


def is_abandoned(store: Store, spec: JobSpec) -> bool:
    """Whether the step ended, or its heartbeat is older than 3 minutes; False where that cannot be known."""
    key = layout.stage_record(spec.run_id, spec.stage, spec.recipe.name)
    try:
        record = StageRecord.model_validate(store.get_json(key))
    except (UserError, ValidationError):  # the store is unreachable, or the job was started by hand, without a record
        return False
    return record.effective_status(now()) != "running"
