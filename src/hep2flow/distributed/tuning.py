"""Ray Tune around the trials of a sweep: place them, stop the hopeless ones, and keep every trial's record in the store.

Tune's own state is thrown away: a sweep that was interrupted is rebuilt from its records.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ray import tune
from ray.tune.schedulers import AsyncHyperBandScheduler
from ray.tune.search import Searcher

from hep2flow.distributed.room import check_room, per_worker
from hep2flow.distributed.trial import EPOCH, SCORE, Cells, SweepSpec, TrialSpec, run_trial
from hep2flow.recipe import Recipe
from hep2flow.store.datasets import open_dataset
from hep2flow.store.patience import Tell
from hep2flow.store.s3 import Store, open_store
from hep2flow.store.splits import Subset, read_split
from hep2flow.tuning.space import changed
from hep2flow.tuning.suggestions import Suggestions
from hep2flow.tuning.trials import Point, Trial, read_trials, write_trial

# No files of Tune's own beside our records.
# Its tables on the terminal.
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
# Its syncing of results to a storage that we throw away.
os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "3600")


def run_sweep(spec: SweepSpec, before: Iterable[Trial], tell: Tell) -> None:
    """Run what is missing of a sweep on the connected Ray cluster; its trials' records lie in the store.

    before: trials of an earlier sweep of the same space, to learn from
    tell:   told of each trial that ends
    Raises UserError where the cluster lacks what a trial asks for.
    """
    store = open_store(spec.store, tell)
    check_room(spec.recipe.resources, grows=bool(os.environ.get("RAY_ADDRESS")))
    records = read_trials(store, spec.key)
    ended = [trial for trial in records if trial.status != "running"]
    begun = [trial for trial in records if trial.status == "running"]
    missing = spec.trials - len(ended)
    if missing > 0:
        cells = _cells(store, spec)
        suggestions = Suggestions(spec.recipe, [*ended, *begun, *before])
        recorder = _Recorder(spec, store, suggestions, tell)
        with tempfile.TemporaryDirectory(prefix="hep2flow-sweep-") as scratch:
            tune.Tuner(
                tune.with_resources(tune.with_parameters(run_trial, cells=cells), per_worker(spec.recipe.resources)),
                tune_config=tune.TuneConfig(
                    search_alg=_Searcher(spec, begun, len(records), suggestions, recorder),
                    scheduler=_scheduler(spec, ended, cells),
                    num_samples=missing,
                    max_concurrent_trials=spec.concurrency,
                    time_budget_s=spec.seconds,
                    reuse_actors=True,
                ),
                run_config=tune.RunConfig(name=spec.key, storage_path=scratch, callbacks=[recorder], verbose=0),
            ).fit()


def _cells(store: Store, spec: SweepSpec) -> Cells:
    """Of the training, and of the half of the validation that chooses."""
    from hep2flow.learning.data import columns

    dataset, division = open_dataset(store, spec.dataset), read_split(store, spec.halves)
    searched = "model.aux_features" in spec.recipe.search.space  # some trials may measure the cells
    names = [*columns(spec.recipe), *(["mask"] if searched and not spec.recipe.model.aux_features else [])]

    def rows(subset: Subset) -> list[dict[str, Any]]:
        return list(dataset.rows(set(division.ids(subset)), names, {"train", None}))

    manifest = dataset.manifest
    return Cells(labels=manifest["labels"], bits=manifest["bits"], training=rows("train"), validation=rows("val"))


class _NotKept:
    """Tune writes what it is given to its own storage; ours is thrown away, and a connection cannot be written."""

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __deepcopy__(self, memo: dict[int, Any]) -> _NotKept:
        return self


class _Searcher(_NotKept, Searcher):  # type: ignore[misc] # Ray's classes are untyped
    """First the trials that were interrupted, then new suggestions."""

    def __init__(
        self, spec: SweepSpec, begun: list[Trial], records: int, suggestions: Suggestions, recorder: _Recorder
    ) -> None:
        super().__init__(metric=SCORE, mode="max")
        self._spec, self._begun, self._number = spec, list(begun), records
        self._suggestions, self._recorder = suggestions, recorder

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        if self._begun:
            trial = self._begun.pop(0)
        else:
            changes = self._suggestions.next()
            if changes is None:
                return str(Searcher.FINISHED)
            trial = Trial(number=self._number, changes=changes)
            self._number += 1
        self._recorder.begin(trial)
        spec = TrialSpec(
            store=self._spec.store,
            sweep=self._spec.key,
            number=trial.number,
            recipe=changed(self._spec.recipe, trial.changes),
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
    """Writes what happens to each trial into its record, and lets the suggestions learn from it."""

    def __init__(self, spec: SweepSpec, store: Store, suggestions: Suggestions, tell: Tell) -> None:
        self._spec, self._store, self._suggestions, self._tell = spec, store, suggestions, tell
        self._records: dict[int, Trial] = {}

    def begin(self, record: Trial) -> None:
        """A trial that Tune is about to place."""
        self._records[record.number] = record
        write_trial(self._store, self._spec.key, record)

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any) -> None:
        record = self._records[trial.config["number"]]
        record.reason = result.get("refused")
        record.points = [Point(**point) for point in result.get("points", [])] or record.points
        write_trial(self._store, self._spec.key, record)

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
        self._store.delete_folder(
            TrialSpec(
                store=self._spec.store, sweep=self._spec.key, number=record.number, recipe=self._spec.recipe
            ).prefix
        )
        self._suggestions.learn(record)
        score = record.score(self._spec.recipe.search.metric)
        told = record.reason or (
            "no epoch" if score is None else f"{abs(score):.4f} after epoch {record.points[-1].epoch}"
        )
        self._tell(f"trial {record.number}: {record.status}, {told}")


def _scheduler(spec: SweepSpec, ended: list[Trial], cells: Cells) -> AsyncHyperBandScheduler | None:
    """ASHA as it was when these trials had ended; None without early stopping."""
    search = spec.recipe.search
    if search.early_stopping == "none":
        return None
    scheduler = AsyncHyperBandScheduler(
        time_attr=EPOCH,
        metric=SCORE,
        mode="max",
        max_t=max(_epochs(spec.recipe, cells), search.grace_epochs + 1),
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


def _epochs(recipe: Recipe, cells: Cells) -> int:
    """Of a trial that nobody stops."""
    import torch

    from hep2flow.learning.loop import plan

    return plan(recipe, torch.tensor([cells.labels.index(row["pattern"]) for row in cells.training])).epochs


def _reason(trial: Any) -> str:
    """The line that says what happened: of a traceback the last, of a process that is gone the first."""
    path = trial.error_file
    text = Path(path).read_text(encoding="utf-8") if path and Path(path).exists() else ""
    lines = [line.strip() for line in text.splitlines() if line.strip()][1:]  # the first counts the failures
    if not lines:
        return "it crashed, and Ray does not know why"
    return (lines[-1] if "Traceback" in text else lines[0])[:200]
