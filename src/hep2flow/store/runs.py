"""Runs in the store: what was asked for, which stages ran where, and whether they are still alive."""

from __future__ import annotations

import logging
import os
import platform
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError

from hep2flow import __version__
from hep2flow.cores import cores
from hep2flow.errors import StoreError, UserError
from hep2flow.results import StageResult
from hep2flow.store import layout
from hep2flow.store.faults import NotThereError
from hep2flow.store.s3 import Store
from hep2flow.termination import TerminatedError

RunStatus = Literal["running", "succeeded", "failed", "interrupted"]
HEARTBEAT_SECONDS = 30.0
LOST_AFTER = timedelta(minutes=3)

log = logging.getLogger(__name__)

Record = TypeVar("Record", bound=BaseModel)


def now() -> datetime:
    """This moment, UTC, to the second."""
    return datetime.now(timezone.utc).replace(microsecond=0)


def versions() -> dict[str, str]:
    """Versions of Python, hep2flow and the packages that decide a result; those not installed here are left out."""
    found = {"python": platform.python_version(), "hep2flow": __version__}
    for name in ("torch", "timm", "ray", "kfp"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


class RunRecord(BaseModel):
    """``runs/{run_id}/run.json``.

    job_id: of the pipeline's job that works on this run now; empty before it begins
    keys:   ``{stage}-{model}`` -> the key that stage worked under
    """

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    run_id: str
    job_id: str = ""
    status: RunStatus = "running"
    started: datetime = Field(default_factory=now)
    ended: datetime | None = None
    parameters: dict[str, Any] = {}
    recipes: dict[str, dict[str, Any]] = {}
    versions: dict[str, str] = Field(default_factory=versions)
    keys: dict[str, str] = {}


class StageRecord(BaseModel):
    """``runs/{run_id}/stages/{stage}-{model}.json``.

    seconds:   wall time of the stage
    heartbeat: last sign of life
    error:     what went wrong, where it failed
    mendable:  the error is one the user can mend
    """

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    run_id: str
    stage: str
    model: str | None = None
    status: RunStatus = "running"
    started: datetime = Field(default_factory=now)
    heartbeat: datetime = Field(default_factory=now)
    seconds: float | None = None
    host: str = Field(default_factory=socket.gethostname)
    pid: int = Field(default_factory=os.getpid)
    cpus: int = Field(default_factory=cores)
    gpus: int = Field(default_factory=lambda: len(list(Path("/dev").glob("nvidia[0-9]*"))))
    key: str | None = None
    cached: bool = False
    result: dict[str, Any] = {}
    error: str | None = None
    mendable: bool = False
    _store: Store | None = PrivateAttr(None)

    def take(self, result: StageResult) -> None:
        """What the stage returned."""
        self.result, self.key, self.cached = result.model_dump(mode="json"), result.key, result.cached

    def announce(self, key: str) -> None:
        """Write the key down before the stage is done, so that its progress can be followed."""
        self.key = key
        if self._store is not None:
            self._store.put_json(layout.stage_record(self.run_id, self.stage, self.model), _plain(self))

    def told_status(self, at: datetime) -> str:
        """The status, or ``lost`` where it says running but gave no sign of life for 3 minutes."""
        return "lost" if self.status == "running" and at - self.heartbeat > LOST_AFTER else self.status


class RunView(BaseModel):
    """A run as a person wants to see it: its own and its stages' statuses as :func:`show_run` tells them."""

    status: str
    run: RunRecord
    stages: list[StageRecord]
    stage_status: dict[str, str]


def start_run(store: Store, record: RunRecord) -> RunRecord:
    """Write a run's record. A retry of the same run takes up its record again.

    Raises UserError where the run id already belongs to a run with other parameters or recipes.
    """
    key = layout.run_record(record.run_id)
    if store.put_json(key, _plain(record), if_absent=True):
        return record
    older = _read(store, key, RunRecord)
    if (older.parameters, older.recipes) != (record.parameters, record.recipes):
        raise UserError(f"run id {record.run_id}: belongs to a run with other parameters; choose another run id")
    resumed = older.model_copy(
        update={"job_id": record.job_id, "status": "running", "ended": None, "versions": record.versions}
    )
    store.put_json(key, _plain(resumed))
    return resumed


def finish_run(store: Store, run_id: str, status: RunStatus, job_id: str | None = None) -> RunRecord:
    """Close a run: its end, its status, and the keys its stages worked under.

    job_id: a job that was refused the run id closes nothing; None closes in any case
    """
    key = layout.run_record(run_id)
    record = _read(store, key, RunRecord)
    if job_id is not None and record.job_id != job_id:
        return record
    record.status, record.ended = status, now()
    record.keys = {layout.stage_name(s.stage, s.model): s.key for s in _stages(store, run_id) if s.key is not None}
    store.put_json(key, _plain(record))
    return record


@contextmanager
def running_stage(store: Store, run_id: str, stage: str, model: str | None = None) -> Iterator[StageRecord]:
    """Records a stage while its body runs: running with a heartbeat every 30 s, then succeeded, failed or interrupted.

    The body sets ``result``, ``key``, ``cached`` and ``gpus`` of the record it is given.
    """
    key = layout.stage_record(run_id, stage, model)
    record = StageRecord(run_id=run_id, stage=stage, model=model)
    record._store = store
    store.put_json(key, _plain(record))
    began, ended = datetime.now(timezone.utc), threading.Event()

    def beat() -> None:
        while not ended.wait(HEARTBEAT_SECONDS):
            try:
                record.heartbeat = now()
                store.put_json(key, _plain(record))
            except Exception as error:  # a lost heartbeat must not end hours of training
                log.warning("heartbeat of %s: %s", key, error)

    heart = threading.Thread(target=beat, name=f"heartbeat-{stage}", daemon=True)
    heart.start()

    def finish(status: RunStatus) -> None:
        ended.set()
        heart.join()  # or its "running" might be written over our last word
        record.status, record.heartbeat = status, now()
        record.seconds = round((datetime.now(timezone.utc) - began).total_seconds(), 3)
        store.put_json(key, _plain(record))

    try:
        yield record
    except BaseException as error:
        record.error, record.mendable = told_error(error), isinstance(error, UserError)
        try:
            finish("failed" if isinstance(error, Exception) else "interrupted")
        except StoreError as fault:
            log.warning("the failure of %s could not be recorded: %s", key, fault)
        raise
    finish("succeeded")


@contextmanager
def interrupted(store: Store, run_id: str) -> Iterator[None]:
    """A run that is broken off by hand, or by SIGTERM, inside the block says so in its record."""
    try:
        yield
    except (KeyboardInterrupt, TerminatedError):
        try:
            finish_run(store, run_id, "interrupted")
        except UserError as error:  # it had not begun yet, or the store is gone too
            log.warning("%s", error)
        raise


def list_runs(store: Store) -> list[RunView]:
    """All runs, the latest first."""
    views = []
    for run_id in store.folders(layout.RUNS):
        try:
            views.append(show_run(store, run_id))
        except StoreError:
            raise
        except UserError as error:  # one damaged record must not hide the other runs
            # Some servers keep the folder of a run that was deleted.
            if not isinstance(error.__cause__, NotThereError):
                log.warning("%s", error)
    return sorted(views, key=lambda view: view.run.started, reverse=True)


def show_run(store: Store, run_id: str) -> RunView:
    """One run with its stages. A stage, and with it a run, that says running without a sign of life is ``lost``."""
    run = _read(store, layout.run_record(run_id), RunRecord)
    stages = sorted(_stages(store, run_id), key=lambda stage: stage.started)
    at = now()
    told = {layout.stage_name(stage.stage, stage.model): stage.told_status(at) for stage in stages}
    lost = run.status == "running" and "lost" in told.values() and "running" not in told.values()
    return RunView(status="lost" if lost else run.status, run=run, stages=stages, stage_status=told)


def _stages(store: Store, run_id: str) -> list[StageRecord]:
    return [_read(store, item.key, StageRecord) for item in store.list(layout.stages_prefix(run_id))]


def _read(store: Store, key: str, kind: type[Record]) -> Record:
    try:
        return kind.model_validate(store.get_json(key))
    except NotThereError as error:
        raise UserError(f"{store.uri(key)}: there is no such run; `hep2flow runs list` names them") from error
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))
        raise UserError(f"{store.uri(key)}: {where} is damaged, or from another version of hep2flow") from error


def _plain(record: BaseModel) -> dict[str, Any]:
    return record.model_dump(mode="json")


def told_error(error: BaseException) -> str:
    """A user's error in full, several faults on several lines; ours by its type and first line."""
    text = str(error).strip()
    if not isinstance(error, UserError):
        text = f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__
    secret = os.environ.get("AWS_SECRET_ACCESS_KEY")
    return text.replace(secret, "***") if secret else text
