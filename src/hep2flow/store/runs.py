"""Runs in the store: their records, and the status that follows from these."""

import hashlib
import logging
import os
import platform
import socket
import threading
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import AliasChoices, BaseModel, Field, PrivateAttr, ValidationError

from hep2flow import __version__
from hep2flow.errors import StoreError, UserError
from hep2flow.parallel import cpu_count
from hep2flow.recipe import Recipe
from hep2flow.stage_result import StageResult
from hep2flow.store import layout
from hep2flow.store.errors import NotThereError
from hep2flow.store.s3 import Store

StageStatus = Literal["running", "succeeded", "failed", "interrupted"]
RunStatus = Literal["submitted", "running", "succeeded", "failed", "interrupted"]
LOST_AFTER = timedelta(minutes=3)  # without a heartbeat

log = logging.getLogger(__name__)

Record = TypeVar("Record", bound=BaseModel)


def now() -> datetime:
    """Return the current time, UTC, to the second."""
    return datetime.now(timezone.utc).replace(microsecond=0)


def versions() -> dict[str, str]:
    """Return the versions of Python, hep2flow and the installed packages that determine a result."""
    found = {"python": platform.python_version(), "hep2flow": __version__}
    for name in ("torch", "timm", "ray", "kfp"):
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


class RunRecord(BaseModel, extra="forbid", validate_assignment=True):
    """``runs/{run_id}/run.json``.

    A run may be started several times: each start is an attempt, and only what its own steps record counts.
    """

    run_id: str
    # Id of the pipeline's job that works on this run now; empty until that is known.
    attempt: str = Field(default="", validation_alias=AliasChoices("attempt", "job_id"))
    attempts: int = 1  # how often the run was started
    status: RunStatus = "running"  # as last written; :func:`show_run` derives the current one from the stages' records
    started: datetime = Field(default_factory=now)
    attempt_started: datetime = Field(default_factory=now)
    heartbeat: datetime = Field(default_factory=now)  # of whoever starts and watches the run; the stages have their own
    ended: datetime | None = None
    kubeflow_run: str = ""  # id in Kubeflow Pipelines; empty for a local run
    kubeflow_url: str = ""  # page of that run
    parameters: dict[str, Any] = {}
    recipes: dict[str, dict[str, Any]] = {}  # by name: those trained as they are, and those whose search space is swept
    models: dict[str, str] = {}  # those trained in full -> the recipe whose sweep each comes from, empty where none is
    versions: dict[str, str] = Field(default_factory=versions)
    keys: dict[str, str] = {}  # ``{stage}-{model}`` -> key of that stage


class StageRecord(BaseModel, extra="forbid", validate_assignment=True):
    """``runs/{run_id}/stages/{stage}-{model}.json``."""

    run_id: str
    stage: str
    model: str | None = None
    attempt: str = ""  # of the run, that the stage belongs to; empty for a stage outside of any attempt
    status: StageStatus = "running"
    started: datetime = Field(default_factory=now)
    heartbeat: datetime = Field(default_factory=now)
    seconds: float | None = None  # wall time
    host: str = Field(default_factory=socket.gethostname)
    pid: int = Field(default_factory=os.getpid)
    cpus: int = Field(default_factory=cpu_count)
    gpus: int = Field(default_factory=lambda: len(list(Path("/dev").glob("nvidia[0-9]*"))))
    key: str | None = None
    cached: bool = False
    result: dict[str, Any] = {}
    error: str | None = None
    mendable: bool = False  # the error is one the user can fix
    _store: Store | None = PrivateAttr(None)
    _superseded: threading.Event = PrivateAttr(default_factory=threading.Event)

    @property
    def is_superseded(self) -> bool:
        """Whether another attempt has claimed the run, as far as this process knows."""
        return self._superseded.is_set()

    def set_result(self, result: StageResult) -> None:
        """Set the result, the key and whether it was cached."""
        self.result, self.key, self.cached = result.model_dump(mode="json"), result.key, result.cached

    def save_key(self, key: str) -> None:
        """Write the key before the stage is done, so that its progress can be watched."""
        self.key = key
        if self._store is not None:
            write_stage(self._store, self)

    def effective_status(self, at: datetime) -> str:
        """Return the status, or ``lost`` for a running stage without a heartbeat for 3 minutes."""
        return "lost" if self.status == "running" and at - self.heartbeat > LOST_AFTER else self.status


class RunView(BaseModel):
    """A run with the effective statuses of itself and its stages."""

    status: str
    last_sign: datetime  # last heartbeat of anybody who works on the run or watches it
    run: RunRecord
    stages: list[StageRecord]  # of this attempt, the earliest first
    stage_status: dict[str, str]


def start_run(store: Store, record: RunRecord) -> RunRecord:
    """Write a run's record. Starting the same run again starts another attempt, or the one that was submitted.

    UserError where the run id belongs to a run with other parameters or recipes.
    """
    if store.put_json(layout.run_record(record.run_id), record.model_dump(mode="json"), if_absent=True):
        return record
    older = read_run(store, record.run_id)
    if (older.parameters, older.recipes) != (record.parameters, record.recipes):
        raise UserError(f"run id {record.run_id}: belongs to a run with other parameters; choose another run id")
    if record.attempt and older.attempt in ("", record.attempt):
        return claim_run(store, record.run_id, record.attempt)
    again = record.model_copy(update={"started": older.started, "attempts": older.attempts + 1, "keys": older.keys})
    return _write_run(store, again)


def read_run(store: Store, run_id: str) -> RunRecord:
    """Read ``run.json`` as last written; UserError where there is no such run, or its record is damaged."""
    return _read(store, layout.run_record(run_id), RunRecord)


def update_run(store: Store, run_id: str, **fields: Any) -> RunRecord:
    """Change fields of a run's record, with a heartbeat."""
    return _write_run(store, read_run(store, run_id).model_copy(update={**fields, "heartbeat": now()}))


def claim_run(store: Store, run_id: str, attempt: str) -> RunRecord:
    """Claim a run for an attempt, as its first step does: from now on only records of this attempt count.

    The attempt is the one that was submitted, or a run cloned from it in Kubeflow's page, which is another one.
    """
    record = read_run(store, run_id)
    if record.attempt not in ("", attempt):
        record.attempts, record.attempt_started = record.attempts + 1, now()
        if record.kubeflow_run:
            record.kubeflow_url = record.kubeflow_url.replace(record.kubeflow_run, attempt)
            record.kubeflow_run = attempt
    record.attempt, record.status, record.ended, record.heartbeat = attempt, "running", None, now()
    return _write_run(store, record)


def finish_run(store: Store, run_id: str, status: RunStatus, attempt: str | None = None) -> RunRecord:
    """Close a run: its end, its status, and the keys of its stages.

    An ``attempt`` that another one has superseded closes nothing; None closes in any case.
    """
    record = read_run(store, run_id)
    if attempt is not None and record.attempt != attempt:
        return record
    stages = _stages(store, record)
    record.status, record.ended, record.heartbeat = status, now(), now()
    record.keys = {layout.stage_name(s.stage, s.model): s.key for s in stages if s.key is not None}
    return _write_run(store, record)


def write_stage(store: Store, record: StageRecord) -> None:
    """Write a stage's record."""
    store.put_json(layout.stage_record(record.run_id, record.stage, record.model), record.model_dump(mode="json"))


def put_recipe(store: Store, recipe: Recipe) -> str:
    """Write a complete recipe to ``recipes/{digest}.yaml``; returns its URI."""
    text = recipe.to_yaml().encode()
    key = layout.recipe_key(hashlib.sha256(text).hexdigest()[:32])
    store.put_bytes(key, text)
    return store.uri(key)


def list_runs(store: Store) -> list[RunView]:
    """List all runs, the latest first."""
    views = []
    for run_id in store.folders(layout.RUNS):
        try:
            views.append(show_run(store, run_id))
        except StoreError:
            raise
        except UserError as error:  # one damaged record must not hide the other runs
            # Some servers keep the folder of a deleted run.
            if not isinstance(error.__cause__, NotThereError):
                log.warning("%s", error)
    return sorted(views, key=lambda view: view.run.started, reverse=True)


def show_run(store: Store, run_id: str) -> RunView:
    """Return a run with the stages of its attempt, from their records and last heartbeats."""
    run = read_run(store, run_id)
    stages = sorted(_stages(store, run), key=lambda stage: stage.started)
    at = now()
    statuses = {layout.stage_name(stage.stage, stage.model): stage.effective_status(at) for stage in stages}
    last_sign = max([run.heartbeat, run.attempt_started, *(stage.heartbeat for stage in stages)])
    reported = any(stage.stage == "report" and stage.status == "succeeded" for stage in stages)
    status: str = run.status
    if status in ("submitted", "running"):  # the worst of the stages, after those that still run
        worst = next((one for one in ("running", "failed", "lost", "interrupted") if one in statuses.values()), None)
        status = worst or ("succeeded" if reported else "lost" if at - last_sign > LOST_AFTER else status)
    return RunView(status=status, last_sign=last_sign, run=run, stages=stages, stage_status=statuses)


def _stages(store: Store, run: RunRecord) -> list[StageRecord]:
    """Stages of this attempt, and of none."""
    found = [_read(store, item.key, StageRecord) for item in store.list_objects(layout.stages_prefix(run.run_id))]
    return [stage for stage in found if stage.attempt in ("", run.attempt)]


def _write_run(store: Store, record: RunRecord) -> RunRecord:
    store.put_json(layout.run_record(record.run_id), record.model_dump(mode="json"))
    return record


def _read(store: Store, key: str, kind: type[Record]) -> Record:
    try:
        return kind.model_validate(store.get_json(key))
    except NotThereError as error:
        raise UserError(f"{store.uri(key)}: there is no such run; `hep2flow runs list` names them") from error
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))
        raise UserError(f"{store.uri(key)}: {where} is damaged, or from another version of hep2flow") from error
