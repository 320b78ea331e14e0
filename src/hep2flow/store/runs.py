"""Runs in the store: what was asked for, which stages ran where, and whether they are still alive."""

from __future__ import annotations

import hashlib
import logging
import os
import platform
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, PrivateAttr, ValidationError

from hep2flow import __version__
from hep2flow.errors import StoreError, UserError
from hep2flow.parallel import cores
from hep2flow.process import TerminatedError, announced
from hep2flow.recipe import Recipe
from hep2flow.stage_result import StageResult
from hep2flow.store import layout
from hep2flow.store.errors import NotThereError
from hep2flow.store.s3 import Store

StageStatus = Literal["running", "succeeded", "failed", "interrupted"]
RunStatus = Literal["submitted", "running", "succeeded", "failed", "interrupted"]
HEARTBEAT_SECONDS = 30.0
LOST_AFTER = timedelta(minutes=3)
# A process that Kubeflow terminates lives for about a second after SIGTERM.
LAST_WORD_SECONDS = 0.3
# One whose pod is deleted has half a minute.
LEFT_SECONDS = 5.0

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

    A run may be started several times: each start is an attempt, and only what its own steps record counts.

    Attributes:
        attempt: Id of the pipeline's job that works on this run now; empty until that is known.
        attempts: How often the run was started.
        status: As it was last written; :func:`show_run` tells the truth from the stages' records.
        started: First start of the run.
        attempt_started: Start of this attempt.
        heartbeat: Last sign of life of whoever starts and follows the run; the stages have their own.
        kubeflow_run: Id of the run in Kubeflow Pipelines; empty on a machine of one's own.
        kubeflow_url: Page of that run.
        recipes: Recipes by name: those trained as they are, and those whose search space is swept.
        models: Models trained in full, each with the recipe whose sweep it comes from, empty where there is none.
        keys: ``{stage}-{model}`` -> the key that stage worked under.
    """

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    run_id: str
    attempt: str = Field(default="", validation_alias=AliasChoices("attempt", "job_id"))
    attempts: int = 1
    status: RunStatus = "running"
    started: datetime = Field(default_factory=now)
    attempt_started: datetime = Field(default_factory=now)
    heartbeat: datetime = Field(default_factory=now)
    ended: datetime | None = None
    kubeflow_run: str = ""
    kubeflow_url: str = ""
    parameters: dict[str, Any] = {}
    recipes: dict[str, dict[str, Any]] = {}
    models: dict[str, str] = {}
    versions: dict[str, str] = Field(default_factory=versions)
    keys: dict[str, str] = {}


class StageRecord(BaseModel):
    """``runs/{run_id}/stages/{stage}-{model}.json``.

    Attributes:
        attempt: Attempt of the run that the stage worked for; empty for what is done beside any attempt.
        seconds: Wall time of the stage.
        heartbeat: Last sign of life.
        error: What went wrong, where it failed.
        mendable: The error is one the user can mend.
    """

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    run_id: str
    stage: str
    model: str | None = None
    attempt: str = ""
    status: StageStatus = "running"
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
    _superseded: threading.Event = PrivateAttr(default_factory=threading.Event)

    @property
    def is_superseded(self) -> bool:
        """Whether another attempt has taken the run over, as far as this process knows."""
        return self._superseded.is_set()

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
    """A run as a person wants to see it: its own and its stages' statuses as :func:`show_run` tells them.

    Attributes:
        last_sign: Last sign of life of anybody who works on the run or follows it.
        stages: Of this attempt, the earliest first.
    """

    status: str
    last_sign: datetime
    run: RunRecord
    stages: list[StageRecord]
    stage_status: dict[str, str]


def start_run(store: Store, record: RunRecord) -> RunRecord:
    """Write a run's record. Starting the same run again begins another attempt at it, or the one that was submitted.

    Raises:
        UserError: The run id already belongs to a run with other parameters or recipes.
    """
    key = layout.run_record(record.run_id)
    if store.put_json(key, _plain(record), if_absent=True):
        return record
    older = _read(store, key, RunRecord)
    if (older.parameters, older.recipes) != (record.parameters, record.recipes):
        raise UserError(f"run id {record.run_id}: belongs to a run with other parameters; choose another run id")
    if record.attempt and older.attempt in ("", record.attempt):
        return take_over(store, record.run_id, record.attempt)
    again = record.model_copy(update={"started": older.started, "attempts": older.attempts + 1, "keys": older.keys})
    store.put_json(key, _plain(again))
    return again


def read_run(store: Store, run_id: str) -> RunRecord:
    """``run.json`` as it was last written; UserError where there is no such run, or its record is damaged."""
    return _read(store, layout.run_record(run_id), RunRecord)


def update_run(store: Store, run_id: str, **fields: Any) -> RunRecord:
    """Change fields of a run's record, with a sign of life."""
    record = read_run(store, run_id).model_copy(update={**fields, "heartbeat": now()})
    store.put_json(layout.run_record(run_id), _plain(record))
    return record


def take_over(store: Store, run_id: str, attempt: str) -> RunRecord:
    """What the first step of an attempt does: from now on only records of this attempt count.

    The attempt is the one that was submitted, or a run cloned from it in Kubeflow's page, which is another one.
    """
    record = read_run(store, run_id)
    if record.attempt not in ("", attempt):
        clone: dict[str, Any] = {"attempts": record.attempts + 1, "attempt_started": now()}
        if record.kubeflow_run:
            url = record.kubeflow_url.replace(record.kubeflow_run, attempt)
            clone |= {"kubeflow_run": attempt, "kubeflow_url": url}
        record = record.model_copy(update=clone)
    record = record.model_copy(update={"attempt": attempt, "status": "running", "ended": None, "heartbeat": now()})
    store.put_json(layout.run_record(run_id), _plain(record))
    return record


def finish_run(store: Store, run_id: str, status: RunStatus, attempt: str | None = None) -> RunRecord:
    """Close a run: its end, its status, and the keys its stages worked under.

    Args:
        store: Where the run lies.
        run_id: The run.
        status: How it ended.
        attempt: Who closes it: one that another attempt has replaced closes nothing. None closes in any case.
    """
    record = read_run(store, run_id)
    if attempt is not None and record.attempt != attempt:
        return record
    stages = _stages(store, record)
    record.status, record.ended, record.heartbeat = status, now(), now()
    record.keys = {layout.stage_name(s.stage, s.model): s.key for s in stages if s.key is not None}
    store.put_json(layout.run_record(run_id), _plain(record))
    return record


class SupersededError(TerminatedError):
    """The run was started again meanwhile, and this step belongs to the attempt before."""


class LeftRunningError(TerminatedError):
    """This process ends, but what it follows elsewhere goes on and waits to be followed again."""


@contextmanager
def running_stage(
    store: Store, run_id: str, stage: str, model: str | None = None, attempt: str = ""
) -> Iterator[StageRecord]:
    """Records a stage while its body runs: running with a heartbeat every 30 s, then succeeded, failed or interrupted.

    The body sets ``result``, ``key``, ``cached`` and ``gpus`` of the record it is given. On SIGTERM the record says
    interrupted at once, before the body cleans up: a process that Kubeflow terminates lives for about a second only.

    Args:
        store: Where the run lies.
        run_id: The run.
        stage: Name of the stage.
        model: Which the stage serves; None for one that serves all.
        attempt: Of the run. Once another one has taken the run over, this process gets SIGTERM.
    """
    record = StageRecord(run_id=run_id, stage=stage, model=model, attempt=attempt)
    record._store = store
    key, writing = layout.stage_record(run_id, stage, model), threading.Lock()
    began, ended, superseded = datetime.now(timezone.utc), threading.Event(), record._superseded
    store.put_json(key, _plain(record))

    def write(status: StageStatus, patience: float = -1) -> None:
        """Not while a heartbeat is being written, or its "running" might come after our last word."""
        held = writing.acquire(timeout=patience)
        try:
            record.status, record.heartbeat = status, now()
            record.seconds = round((datetime.now(timezone.utc) - began).total_seconds(), 3)
            store.put_json(key, _plain(record))
        finally:
            if held:
                writing.release()

    def beat() -> None:
        while not ended.wait(HEARTBEAT_SECONDS):
            try:
                if attempt and read_run(store, run_id).attempt != attempt:
                    superseded.set()
                    os.kill(os.getpid(), signal.SIGTERM)
                    return
                with writing:
                    if not ended.is_set():
                        record.heartbeat = now()
                        store.put_json(key, _plain(record))
            except Exception as error:  # a lost heartbeat must not end hours of training
                log.warning("heartbeat of %s: %s", key, error)

    def interrupted_now() -> None:
        if not ended.is_set() and not superseded.is_set():
            write("interrupted", LAST_WORD_SECONDS)

    threading.Thread(target=beat, name=f"heartbeat-{stage}", daemon=True).start()
    try:
        with announced(interrupted_now):
            yield record
    except BaseException as error:
        ended.set()
        if superseded.is_set():  # the record is the next attempt's
            raise SupersededError from error
        record.error, record.mendable = told_error(error), isinstance(error, UserError)
        patience = LAST_WORD_SECONDS if isinstance(error, TerminatedError) else -1
        try:
            if isinstance(error, LeftRunningError):
                record.error = None
                write("running", LEFT_SECONDS)
            else:
                write("failed" if isinstance(error, Exception) else "interrupted", patience)
        except StoreError as fault:
            log.warning("the failure of %s could not be recorded: %s", key, fault)
        raise
    ended.set()
    write("succeeded")


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
    """One run with the stages of its attempt, from what they recorded and when they last gave a sign of life."""
    run = read_run(store, run_id)
    stages = sorted(_stages(store, run), key=lambda stage: stage.started)
    at = now()
    told = {layout.stage_name(stage.stage, stage.model): stage.told_status(at) for stage in stages}
    last_sign = max([run.heartbeat, run.attempt_started, *(stage.heartbeat for stage in stages)])
    reported = any(stage.stage == "report" and stage.status == "succeeded" for stage in stages)
    status = _status(run.status, set(told.values()), reported, quiet=at - last_sign > LOST_AFTER)
    return RunView(status=status, last_sign=last_sign, run=run, stages=stages, stage_status=told)


def _status(written: RunStatus, stages: set[str], reported: bool, quiet: bool) -> str:
    """Status of a run: of its last step, else of its stages, the worst after those that still run."""
    if written not in ("submitted", "running"):
        return written
    for status in ("running", "failed", "lost", "interrupted"):
        if status in stages:
            return status
    if reported:
        return "succeeded"
    return "lost" if quiet else written


def _stages(store: Store, run: RunRecord) -> list[StageRecord]:
    """Of this attempt, and of none."""
    found = [_read(store, item.key, StageRecord) for item in store.list(layout.stages_prefix(run.run_id))]
    return [stage for stage in found if stage.attempt in ("", run.attempt)]


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


def put_recipe(store: Store, recipe: Recipe) -> str:
    """Write a complete recipe to ``recipes/{digest}.yaml``; returns its URI."""
    text = recipe.to_yaml().encode()
    key = layout.recipe_key(hashlib.sha256(text).hexdigest()[:32])
    store.put_bytes(key, text)
    return store.uri(key)
