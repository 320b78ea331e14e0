"""Ray Tune around the trials of a sweep: place them, stop the hopeless ones, and keep every trial's record in the store.

Tune's own state is thrown away: a sweep that was interrupted is rebuilt from its records.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from ray import tune
from ray.tune.schedulers import AsyncHyperBandScheduler
from ray.tune.search import Searcher

from hep2flow.distributed.capacity import check_room, per_worker, room
from hep2flow.distributed.sweep_spec import SweepSpec, held, read_cells
from hep2flow.distributed.trial import EPOCH, REFUSED, SCORE, Cells, TrialSpec, run_trial
from hep2flow.errors import StoreError
from hep2flow.recipe import Resources
from hep2flow.search.population_based_training import Population
from hep2flow.search.results import progress
from hep2flow.search.space import changed
from hep2flow.search.suggestions import Suggestions
from hep2flow.search.trial_budget import of_length, trial_updates
from hep2flow.search.trials import Point, Trial, read_trials, write_trial
from hep2flow.store.outage import Tell
from hep2flow.store.s3 import Store, open_store
from hep2flow.store.training_status import Live
from hep2flow.training.trainer import plan

# No files of Tune's own beside our records.
# Its tables on the terminal.
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
# Its syncing of results to a storage that we throw away.
os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "3600")

PROGRESS_SECONDS = 1.0


def run_sweep(spec: SweepSpec, before: Iterable[Trial], tell: Tell) -> int:
    """Run what is missing of a sweep on the connected Ray cluster; its trials' records lie in the store.

    before: trials of an earlier sweep of the same space, to learn from
    tell:   told of each trial that ends
    Returns the epochs of a trial that nobody stops.
    Raises UserError where the cluster lacks what a trial asks for.
    """
    store, resources = open_store(spec.store, tell), spec.recipe.resources
    check_room(resources, grows=bool(os.environ.get("RAY_ADDRESS")))
    records = read_trials(store, spec.key)
    ended = [trial for trial in records if trial.status != "running"]
    begun = [trial for trial in records if trial.status == "running"]
    cells = read_cells(store, spec, "choose")
    labels = _labels(next(iter(cells.values())))
    epochs = plan(of_length(spec.recipe, labels, trial_updates(spec.recipe, labels)), labels).epochs
    proposals = (
        Population(spec.recipe, spec.trials, epochs, ended)
        if spec.recipe.search.algorithm == "pbt"
        else Suggestions(spec.recipe, [*ended, *begun, *before])
    )
    missing = spec.trials - len(ended)
    if missing > 0:
        recorder = _Recorder(spec, store, proposals, records, tell)
        with tempfile.TemporaryDirectory(prefix="hep2flow-sweep-") as scratch:
            tune.Tuner(
                tune.with_resources(tune.with_parameters(run_trial, held=held(cells)), _asked(resources)),
                tune_config=tune.TuneConfig(
                    search_alg=_Searcher(spec, labels, begun, len(records), proposals, recorder),
                    scheduler=_scheduler(spec, ended, epochs),
                    num_samples=missing,
                    max_concurrent_trials=spec.concurrency or _at_once(resources),
                    time_budget_s=spec.seconds,
                    reuse_actors=True,
                ),
                run_config=tune.RunConfig(name=spec.key, storage_path=scratch, callbacks=[recorder], verbose=0),
            ).fit()
        recorder.close()
    return epochs


def _labels(cells: Cells) -> torch.Tensor:
    return torch.tensor([cells.labels.index(row["pattern"]) for row in cells.training])


def _asked(resources: Resources) -> dict[str, float]:
    """Of a trial: a worker's, or a byte where it starts several workers, which ask for themselves: Tune wants something."""
    return per_worker(resources) if resources.workers.max == 1 else {"memory": 1}


def _at_once(resources: Resources) -> int | None:
    """Trials of several workers at once; None where Tune sees itself what fits."""
    return None if resources.workers.max == 1 else max(1, room(resources) // resources.workers.max)


class _NotKept:
    """Tune writes what it is given to its own storage; ours is thrown away, and a connection cannot be written."""

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __deepcopy__(self, memo: dict[int, Any]) -> _NotKept:
        return self


class _Searcher(_NotKept, Searcher):  # type: ignore[misc] # Ray's classes are untyped
    """First the trials that were interrupted, then new ones."""

    def __init__(
        self,
        spec: SweepSpec,
        labels: torch.Tensor,
        begun: list[Trial],
        records: int,
        proposals: Suggestions | Population,
        recorder: _Recorder,
    ) -> None:
        super().__init__(metric=SCORE, mode="max")
        self._spec, self._labels, self._begun, self._number = spec, labels, list(begun), records
        self._proposals, self._recorder = proposals, recorder

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        if self._begun:
            trial = self._begun.pop(0)
        else:
            proposed = self._proposals.propose(self._number)
            if proposed is None:
                return str(Searcher.FINISHED)
            if proposed == "later":
                return None
            trial = proposed
            self._number += 1
        self._recorder.begin(trial)
        recipe = changed(self._spec.recipe, trial.changes)
        spec = TrialSpec(
            store=self._spec.store,
            prefix=self._spec.running(trial.number),
            parent=None if trial.parent is None else self._spec.running(trial.parent),
            recipe=of_length(recipe, self._labels, trial_updates(recipe, self._labels)),
            until=self._proposals.until(trial.number) if isinstance(self._proposals, Population) else None,
            weights=self._spec.weights,
        )
        return {"number": trial.number, "spec": spec.model_dump(mode="json")}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """The recorder knows."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing of Tune's is kept."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing of Tune's is kept."""


class _Recorder(_NotKept, tune.Callback):  # type: ignore[misc] # Ray's classes are untyped
    """Writes what happens to each trial into its record, and lets the proposals learn from it."""

    def __init__(
        self, spec: SweepSpec, store: Store, proposals: Suggestions | Population, records: list[Trial], tell: Tell
    ) -> None:
        self._spec, self._store, self._proposals, self._tell = spec, store, proposals, tell
        self._records = {trial.number: trial for trial in records}
        self._live = Live(store, spec.prefix)
        self._started, self._shown = time.monotonic(), 0.0
        self._ended_before = sum(trial.status != "running" for trial in records)

    def begin(self, record: Trial) -> None:
        """A trial that Tune is about to place."""
        self._records[record.number] = record
        write_trial(self._store, self._spec.key, record)
        self._show()

    def close(self) -> None:
        """The sweep is over: its notes are forgotten."""
        self._live.end()

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any) -> None:
        record = self._records[trial.config["number"]]
        record.reason = result.get(REFUSED)
        record.points = [Point(**point) for point in result.get("points", [])] or record.points
        write_trial(self._store, self._spec.key, record)
        self._show()

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        record = self._records[trial.config["number"]]
        if record.reason is not None:
            record.status = "failed"
        else:
            record.status = "finished" if trial.last_result.get("last") else "stopped"
        self._end(record)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        record = self._records[trial.config["number"]]
        record.status, record.reason = "failed", _reason(trial)
        self._end(record)

    def _end(self, record: Trial) -> None:
        write_trial(self._store, self._spec.key, record)
        self._proposals.learn(record)
        for number in self._proposals.unneeded(record):
            self._store.delete_folder(self._spec.running(number))
        score = record.score(self._spec.recipe.search.metric)
        told = record.reason or (
            "no epoch" if score is None else f"{abs(score):.4f} after epoch {record.points[-1].epoch}"
        )
        self._tell(f"trial {record.number}: {record.status}, {told}")
        self._show(at_once=True)

    def _show(self, *, at_once: bool = False) -> None:
        """Where the sweep is, for whoever follows it; a store that is away costs it nothing."""
        now = time.monotonic()
        if not at_once and now - self._shown < PROGRESS_SECONDS:
            return
        self._shown, trials = now, [self._records[number] for number in sorted(self._records)]
        seconds = now - self._started
        try:
            self._live.put_progress(progress(self._spec.recipe, trials, self._spec.trials, seconds, self._ended_before))
        except StoreError:
            return


def _scheduler(spec: SweepSpec, ended: list[Trial], epochs: int) -> AsyncHyperBandScheduler | None:
    """ASHA as it was when these trials had ended; None without early stopping.

    epochs: of a trial that nobody stops
    """
    search = spec.recipe.search
    if search.early_stopping == "none" or search.algorithm == "pbt":
        return None
    scheduler = AsyncHyperBandScheduler(
        time_attr=EPOCH,
        metric=SCORE,
        mode="max",
        max_t=max(epochs, search.grace_epochs + 1),
        grace_period=search.grace_epochs,
        reduction_factor=search.reduction_factor,
        stop_last_trials=False,
    )
    for trial in ended:
        known = SimpleNamespace(trial_id=f"record-{trial.number}")
        scheduler.on_trial_add(None, known)
        for epoch, score in trial.curve(search.metric).items():
            scheduler.on_trial_result(None, known, {EPOCH: epoch, SCORE: score})
        scheduler.on_trial_remove(None, known)
    return scheduler


def _reason(trial: Any) -> str:
    """The line that says what happened: of a traceback the last, of a process that is gone the first."""
    path = trial.error_file
    text = Path(path).read_text(encoding="utf-8") if path and Path(path).exists() else ""
    lines = [line.strip() for line in text.splitlines() if line.strip()][1:]  # the first counts the failures
    if not lines:
        return "it crashed, and Ray does not know why"
    return (lines[-1] if "Traceback" in text else lines[0])[:200]
