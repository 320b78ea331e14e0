"""The record of a stage while it runs: heartbeats, and how it ended."""

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone

from hep2flow.errors import StoreError, UserError
from hep2flow.process import TerminatedError, before_termination
from hep2flow.store import layout
from hep2flow.store.runs import StageRecord, StageStatus, finish_run, now, read_run, write_stage
from hep2flow.store.s3 import Store

HEARTBEAT_SECONDS = 30.0
TERMINATED_SECONDS = 0.3  # a process that Kubeflow terminates lives for about a second after SIGTERM
DETACHED_SECONDS = 5.0  # one whose pod is deleted has half a minute

log = logging.getLogger(__name__)


class SupersededError(TerminatedError):
    """The run was started again meanwhile, and this step belongs to the attempt before."""


class DetachedError(TerminatedError):
    """This process ends, but the job it watches continues and can be watched again."""


@contextmanager
def running_stage(
    store: Store, run_id: str, stage: str, model: str | None = None, attempt: str = ""
) -> Iterator[StageRecord]:
    """Record a stage while its body runs: running with a heartbeat every 30 s, then succeeded, failed or interrupted.

    The body sets ``result``, ``key``, ``cached`` and ``gpus`` of the record. On SIGTERM the record says interrupted at
    once, before the body cleans up: a process that Kubeflow terminates lives for about a second only. Once another
    attempt has claimed the run, this process gets SIGTERM. ``model`` is None for a stage that serves all models.
    """
    record = StageRecord(run_id=run_id, stage=stage, model=model, attempt=attempt)
    record._store = store
    recorder = _StageRecorder(store, record)
    threading.Thread(target=recorder.send_heartbeats, name=f"heartbeat-{stage}", daemon=True).start()
    try:
        with before_termination(recorder.write_interrupted):
            yield record
    except BaseException as error:
        recorder.ended.set()
        if record.is_superseded:  # the record is the next attempt's
            raise SupersededError from error
        recorder.write_failed(error)
        raise
    recorder.ended.set()
    recorder.write("succeeded")


@contextmanager
def record_interruption(store: Store, run_id: str) -> Iterator[None]:
    """Record that a run is interrupted by Ctrl-C or SIGTERM inside the block."""
    try:
        yield
    except (KeyboardInterrupt, TerminatedError):
        try:
            finish_run(store, run_id, "interrupted")
        except UserError as error:  # the run had not started yet, or the store is unreachable too
            log.warning("%s", error)
        raise


def error_text(error: BaseException) -> str:
    """Return a user's error in full, several faults on several lines; ours by its type and first line."""
    text = str(error).strip()
    if not isinstance(error, UserError):
        text = f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__
    secret = os.environ.get("AWS_SECRET_ACCESS_KEY")
    return text.replace(secret, "***") if secret else text


class _StageRecorder:
    """Writes one stage's record, from the thread of the stage and that of its heartbeats."""

    def __init__(self, store: Store, record: StageRecord) -> None:
        self.ended = threading.Event()
        self._store, self._record = store, record
        self._lock, self._started = threading.Lock(), datetime.now(timezone.utc)
        self._key = layout.stage_record(record.run_id, record.stage, record.model)
        write_stage(store, record)

    def write(self, status: StageStatus, timeout: float = -1) -> None:
        """Not while a heartbeat is being written, or its "running" might come after the last status."""
        acquired = self._lock.acquire(timeout=timeout)
        try:
            self._record.status, self._record.heartbeat = status, now()
            self._record.seconds = round((datetime.now(timezone.utc) - self._started).total_seconds(), 3)
            write_stage(self._store, self._record)
        finally:
            if acquired:
                self._lock.release()

    def send_heartbeats(self) -> None:
        """Runs in a thread until the stage has ended or is superseded."""
        record = self._record
        while not self.ended.wait(HEARTBEAT_SECONDS):
            try:
                if record.attempt and read_run(self._store, record.run_id).attempt != record.attempt:
                    record._superseded.set()
                    os.kill(os.getpid(), signal.SIGTERM)
                    return
                with self._lock:
                    if not self.ended.is_set():
                        record.heartbeat = now()
                        write_stage(self._store, record)
            except Exception as error:  # a lost heartbeat must not end hours of training
                log.warning("heartbeat of %s: %s", self._key, error)

    def write_interrupted(self) -> None:
        """Called on SIGTERM, in a thread."""
        if not self.ended.is_set() and not self._record.is_superseded:
            self.write("interrupted", TERMINATED_SECONDS)

    def write_failed(self, error: BaseException) -> None:
        """Record how the body failed, or that it was interrupted or detached."""
        record = self._record
        record.error, record.mendable = error_text(error), isinstance(error, UserError)
        try:
            if isinstance(error, DetachedError):
                record.error = None
                self.write("running", DETACHED_SECONDS)
            else:
                timeout = TERMINATED_SECONDS if isinstance(error, TerminatedError) else -1
                self.write("failed" if isinstance(error, Exception) else "interrupted", timeout)
        except StoreError as fault:
            log.warning("the failure of %s could not be recorded: %s", self._key, fault)
