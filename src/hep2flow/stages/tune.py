"""Tune: a recipe's search space on one split of one data set, through Ray Tune, to ``sweeps/{key}``."""

from __future__ import annotations

import sys
import tempfile
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from hep2flow.distributed.trial import SweepSpec
from hep2flow.errors import UserError
from hep2flow.recipe import Recipe
from hep2flow.results import StageResult
from hep2flow.stages.halve import halve
from hep2flow.stages.train import to_standard_error
from hep2flow.stages.weights import resolve_weights
from hep2flow.store import layout
from hep2flow.store.cache import code_version, commit, lookup, stage_key
from hep2flow.store.datasets import open_dataset
from hep2flow.store.patience import Tell
from hep2flow.store.s3 import Store
from hep2flow.store.splits import read_split
from hep2flow.tuning.space import changed, check_space
from hep2flow.tuning.table import trial_table
from hep2flow.tuning.trials import Trial, best_trial, read_trials

TUNED = "-tuned"
NAME_LENGTH = 40


def tune(
    store: Store,
    recipe: Recipe,
    dataset: str,
    split: str,
    trials: int,
    *,
    concurrency: int | None = None,
    hours: float | None = None,
    earlier: str = "",
    tell: Tell = to_standard_error,
) -> StageResult:
    """Run a sweep, or go on with one that was interrupted, or return the one that is there already.

    dataset:     URI of the masked data set; split: URI of its division, of which :func:`hep2flow.stages.halve.halve`
                 makes the sweep's own: no test cell is in it
    trials:      in all; a sweep of fewer is gone on with
    concurrency: trials at once, None for as many as the cluster has room for
    hours:       after which the sweep ends with the trials it has
    earlier:     URI of another sweep of the same space, whose trials teach this one
    tell:        told in one line of each trial that ends
    The sweep holds ``best.yaml`` (a complete recipe), ``trials.parquet`` and ``trials.csv``, and a record of each trial.
    Raises UserError for a space that is none, and where every trial failed.
    """
    check_space(recipe)
    halves, weights = halve(store, dataset, split), resolve_weights(store, recipe.model)
    key = sweep_key(store, recipe, dataset, halves.uri, None if weights is None else weights.sha256)
    whole, prefix = stage_key("tune", {"sweep": key, "trials": trials}, ""), layout.sweep_prefix(key)
    entry = lookup(store, "tune", whole)
    if entry is not None:
        return StageResult(stage="tune", key=key, uri=store.uri(prefix), cached=True, summary=entry["summary"])
    before = read_trials(store, _key_of(store, earlier)) if earlier else []
    spec = SweepSpec(
        store=store.address,
        key=key,
        recipe=recipe,
        dataset=dataset,
        halves=halves.uri,
        trials=trials,
        concurrency=concurrency,
        seconds=None if hours is None else 3600 * hours,
        weights=None if weights is None else weights.key,
    )
    _run(spec, before, tell)
    found = read_trials(store, key)
    best = best_trial(found, recipe.search.metric)
    if best is None:
        reasons = sorted({trial.reason for trial in found if trial.reason})
        raise UserError(f"sweep: none of {len(found)} trials came to a validated epoch; {'; '.join(reasons)[:500]}")
    summary = _summary(found, best, halves)
    with tempfile.TemporaryDirectory(prefix="hep2flow-sweep-") as name:
        folder = Path(name)
        winner = changed(recipe, {**best.changes, "name": f"{recipe.name[: NAME_LENGTH - len(TUNED)]}{TUNED}"})
        (folder / "best.yaml").write_text(winner.to_yaml(), encoding="utf-8")
        table = trial_table(recipe, found)
        table.to_parquet(folder / "trials.parquet", index=False)
        table.to_csv(folder / "trials.csv", index=False)
        facts = {"kind": "sweep", "dataset": dataset, "split": halves.uri, "metric": recipe.search.metric, **summary}
        store.publish(folder, prefix, facts)
    if len([trial for trial in found if trial.status != "running"]) >= trials:
        commit(store, "tune", whole, {"output": {"uri": store.uri(prefix), "kind": "folder"}, "summary": summary})
    return StageResult(stage="tune", key=key, uri=store.uri(prefix), summary=summary)


def sweep_key(store: Store, recipe: Recipe, dataset: str, halves: str, weights_sha256: str | None) -> str:
    """Key of a sweep: what its trials learn from, every leaf of the recipe they read, and the space; not its length."""
    plain = recipe.model_dump(mode="json", exclude={"name", "profile", "paper_model", "eval", "resources"})
    del plain["model"]["weights"]
    inputs: dict[str, Any] = {
        "dataset": open_dataset(store, dataset).ref.digest,
        "halves": read_split(store, halves).digest,
        "weights": weights_sha256,
        "recipe": plain,
    }
    return stage_key("sweep", inputs, code_version("tune"))


def _run(spec: SweepSpec, before: list[Trial], tell: Tell) -> None:
    from hep2flow.distributed.cluster import connected

    # Ray tells of its trials on standard output, which belongs to the result.
    with redirect_stdout(sys.stderr), connected():
        # Imported here, while the cluster starts.
        from hep2flow.distributed.tuning import run_sweep

        run_sweep(spec, before, tell)


def _key_of(store: Store, uri: str) -> str:
    key = store.key(uri).removeprefix("sweeps/").strip("/")
    if not read_trials(store, key):
        raise UserError(f"--from {uri}: there is no sweep; give the URI that an earlier one returned")
    return key


def _summary(trials: list[Trial], best: Trial, halves: StageResult) -> dict[str, Any]:
    counts = {status: sum(trial.status == status for trial in trials) for status in ("finished", "stopped", "failed")}
    point = best.best_point
    assert point is not None, "the best trial has a score"
    return {
        "trials": len(trials),
        **counts,
        "best_trial": best.number,
        "best": best.changes,
        "val_accuracy": point.val_accuracy,
        "val_loss": point.val_loss,
        "chosen_on": {"cells": halves.summary["chooses"], "by": halves.summary["by"]},
        "failures": {str(trial.number): trial.reason for trial in trials if trial.status == "failed"},
    }
