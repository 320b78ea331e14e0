"""Ray Tune around the trials of a sweep: place them, stop the hopeless ones, store a record of each.

Tune's own state is thrown away: an interrupted sweep is rebuilt from its records.
"""

import os
import tempfile
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from ray import tune
from ray.tune.schedulers import AsyncHyperBandScheduler
from ray.tune.search import Searcher

from hep2flow.distributed.capacity import check_capacity, free_workers, worker_resources
from hep2flow.distributed.sweep_spec import SweepSpec, share_cells
from hep2flow.distributed.trial import EPOCH, REJECTED, SCORE, TrialSpec, run_trial
from hep2flow.errors import StoreError
from hep2flow.search.population_based_training import Population
from hep2flow.search.results import sweep_progress
from hep2flow.search.suggestions import Suggestions
from hep2flow.search.trials import CurvePoint, Status, Trial, read_trials, trial_updates, with_updates, write_trial
from hep2flow.store.open_store import open_store
from hep2flow.store.outage import Log
from hep2flow.store.s3 import Store
from hep2flow.store.training_status import TrainingStatus
from hep2flow.training.trainer import training_length

os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # no tables on the terminal
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")  # no files beside our records
os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "3600")  # no syncing to a storage that is thrown away

PROGRESS_SECONDS = 1.0


def run_sweep(spec: SweepSpec, before: Iterable[Trial], log: Log) -> int:
    """Run a sweep's missing trials on the connected Ray cluster; their records are in the store.

    They learn from the trials ``before``, of an earlier sweep of the same space; ``log`` gets one line per finished trial.

    Returns:
        Epochs of a trial that is not stopped early.

    Raises:
        UserError: The cluster lacks what a trial requests.
    """
    store, search, resources = open_store(spec.store, log), spec.recipe.search, spec.recipe.resources
    check_capacity(resources)
    records = read_trials(store, spec.key)
    ended = [trial for trial in records if trial.status != "running"]
    interrupted = [trial for trial in records if trial.status == "running"]
    shared, labels = share_cells(store, spec)
    epochs = training_length(with_updates(spec.recipe, labels, trial_updates(spec.recipe, labels)), labels).epochs
    proposals: Suggestions | Population
    if search.algorithm == "pbt":
        proposals = Population(spec.recipe, spec.trials, epochs, ended)
    else:
        proposals = Suggestions(spec.recipe, [*ended, *interrupted, *before])
    missing = spec.trials - len(ended)
    if missing <= 0:
        return epochs
    requested, concurrency = worker_resources(resources), spec.concurrency
    if resources.workers.max > 1:
        # The trial's own Ray Train job requests its workers; Tune accepts no empty request, so a byte is requested.
        requested = {"memory": 1}
        concurrency = concurrency or max(1, free_workers(resources) // resources.workers.max)
    recorder = _Recorder(spec, store, proposals, records, log)
    with tempfile.TemporaryDirectory(prefix="hep2flow-sweep-") as scratch:
        tune.Tuner(
            tune.with_resources(tune.with_parameters(run_trial, shared=shared), requested),
            tune_config=tune.TuneConfig(
                search_alg=_Searcher(recorder, interrupted, labels),
                scheduler=_scheduler(spec, ended, epochs),
                num_samples=missing,
                max_concurrent_trials=concurrency,  # None: as many as Tune sees resources for
                time_budget_s=spec.seconds,
                reuse_actors=True,  # a new process for each trial would import torch again
            ),
            run_config=tune.RunConfig(name=spec.key, storage_path=scratch, callbacks=[recorder], verbose=0),
        ).fit()
    recorder.status.clear()
    return epochs


class _NotCheckpointed:
    """Keeps Tune from pickling searcher and callbacks into its storage: a store's connection cannot be pickled."""

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __deepcopy__(self, memo: dict[int, Any]) -> "_NotCheckpointed":
        return self


class _Recorder(_NotCheckpointed, tune.Callback):  # type: ignore[misc] # Ray's classes are untyped
    """Stores what happens to each trial in its record, and lets the proposals learn from it."""

    def __init__(
        self, spec: SweepSpec, store: Store, proposals: Suggestions | Population, records: list[Trial], log: Log
    ) -> None:
        self.spec, self.proposals, self.status = spec, proposals, TrainingStatus(store, spec.prefix)
        self.records = {trial.number: trial for trial in records}
        self._store, self._log, self._started, self._progress_time = store, log, time.monotonic(), 0.0
        self._ended_before = sum(trial.status != "running" for trial in records)

    def start(self, record: Trial) -> None:
        self.records[record.number] = record
        write_trial(self._store, self.spec.key, record)
        self._report_progress()

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any) -> None:
        record = self.records[trial.config["number"]]
        record.reason = result.get(REJECTED)
        record.points = [CurvePoint(**point) for point in result.get("points", [])] or record.points
        write_trial(self._store, self.spec.key, record)
        self._report_progress()

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        record = self.records[trial.config["number"]]
        ended: Status = "finished" if trial.last_result.get("last") else "stopped"
        record.status = ended if record.reason is None else "failed"
        self._end(record)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        record = self.records[trial.config["number"]]
        record.status, record.reason = "failed", _failure(trial)
        self._end(record)

    def _end(self, record: Trial) -> None:
        write_trial(self._store, self.spec.key, record)
        self.proposals.observe(record)
        for number in self.proposals.obsolete_states(record):
            self._store.delete_folder(self.spec.state_prefix(number))
        score = record.score(self.spec.recipe.search.metric)
        result = "no epoch" if score is None else f"{abs(score):.4f} after epoch {record.points[-1].epoch}"
        self._log(f"trial {record.number}: {record.status}, {record.reason or result}")
        self._report_progress(at_once=True)

    def _report_progress(self, *, at_once: bool = False) -> None:
        now, spec = time.monotonic(), self.spec
        if not at_once and now - self._progress_time < PROGRESS_SECONDS:
            return
        self._progress_time, trials = now, [self.records[number] for number in sorted(self.records)]
        progress = sweep_progress(spec.recipe, trials, spec.trials, now - self._started, self._ended_before)
        with suppress(StoreError):  # an outage must not fail the sweep
            self.status.put_progress(progress)


class _Searcher(_NotCheckpointed, Searcher):  # type: ignore[misc] # Ray's classes are untyped
    """Hands Tune the interrupted trials first, then new ones."""

    def __init__(self, recorder: _Recorder, interrupted: list[Trial], labels: torch.Tensor) -> None:
        super().__init__(metric=SCORE, mode="max")
        self._recorder, self._interrupted, self._labels = recorder, list(interrupted), labels
        self._next_number = len(recorder.records)

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        sweep, proposals = self._recorder.spec, self._recorder.proposals
        if self._interrupted:
            trial = self._interrupted.pop(0)
        else:
            proposed = proposals.propose(self._next_number)
            if proposed is None:
                return str(Searcher.FINISHED)
            if proposed == "later":
                return None  # Tune asks again
            trial = proposed
            self._next_number += 1
        self._recorder.start(trial)
        recipe = sweep.recipe.changed(trial.changes)
        spec = TrialSpec(
            store=sweep.store,
            prefix=sweep.state_prefix(trial.number),
            parent=None if trial.parent is None else sweep.state_prefix(trial.parent),
            recipe=with_updates(recipe, self._labels, trial_updates(recipe, self._labels)),
            end_epoch=proposals.end_epoch(trial.number) if isinstance(proposals, Population) else None,
            weights=sweep.weights,
        )
        return {"number": trial.number, "spec": spec.model_dump(mode="json")}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """The recorder handles it."""

    def save(self, checkpoint_path: str) -> None:
        """The records are enough."""

    def restore(self, checkpoint_path: str) -> None:
        """The records are enough."""


def _scheduler(spec: SweepSpec, ended: list[Trial], epochs: int) -> AsyncHyperBandScheduler | None:
    """ASHA in the state it had when these trials had ended; None without early stopping."""
    search = spec.recipe.search
    if search.early_stopping == "none" or search.algorithm == "pbt":
        return None
    grace, rungs = search.grace_epochs, {"reduction_factor": search.reduction_factor, "stop_last_trials": False}
    limits = {"max_t": max(epochs, grace + 1), "grace_period": grace, **rungs}
    scheduler = AsyncHyperBandScheduler(time_attr=EPOCH, metric=SCORE, mode="max", **limits)
    for trial in ended:
        replayed = SimpleNamespace(trial_id=f"record-{trial.number}")
        scheduler.on_trial_add(None, replayed)
        for epoch, score in trial.curve(search.metric).items():
            scheduler.on_trial_result(None, replayed, {EPOCH: epoch, SCORE: score})
        scheduler.on_trial_remove(None, replayed)
    return scheduler


def _failure(trial: Any) -> str:
    """The line of Tune's error file that says what happened: of a traceback the last, of a lost process the first."""
    path = trial.error_file
    text = Path(path).read_text(encoding="utf-8") if path and Path(path).exists() else ""
    lines = [line.strip() for line in text.splitlines() if line.strip()][1:]  # the first counts the failures
    if not lines:
        return "it crashed, and Ray does not know why"
    return (lines[-1] if "Traceback" in text else lines[0])[:200]
