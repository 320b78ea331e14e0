"""Tune: a recipe's search space on one split of one data set, through Ray Tune, to ``sweeps/{key}``."""

from typing import Any

from hep2flow.cells import temporary_folder
from hep2flow.distributed.ray_cluster import connected
from hep2flow.distributed.sweep_spec import SweepSpec
from hep2flow.errors import UserError
from hep2flow.recipe import Recipe
from hep2flow.search.results import early_stopping_savings, learning_curves, parameter_importance, trial_table
from hep2flow.search.settings import SweepSettings
from hep2flow.search.space import check_space
from hep2flow.search.trials import Trial, best_trial, read_trials
from hep2flow.stage_result import StageResult
from hep2flow.stages.finalists import tuned_recipe
from hep2flow.stages.initial_weights import InitialWeights, resolve_weights
from hep2flow.stages.masked_variant import masked_variant
from hep2flow.stages.split import split_validation
from hep2flow.store import layout
from hep2flow.store.datasets import open_dataset
from hep2flow.store.outage import Log, log_to_stderr
from hep2flow.store.publish import publish
from hep2flow.store.runs import show_run
from hep2flow.store.s3 import Store
from hep2flow.store.splits import split_digest
from hep2flow.store.stage_cache import code_version, commit, lookup, stage_key


def tune(
    store: Store,
    recipe: Recipe,
    dataset: str,
    split: str,
    settings: SweepSettings,
    *,
    announce: Log | None = None,
    log: Log = log_to_stderr,
) -> StageResult:
    """Run a sweep, resume an interrupted one, or return the cached one.

    The sweep uses the split's validation set, in two halves, and no test cell; the data set is the masked one. ``announce``
    is called with the sweep's key before it starts, so that its progress can be read in the store; ``log`` with one line for
    each trial that ends. ``judge``, ``finals`` and ``beside`` of the settings are for later stages.

    Returns:
        The sweep: ``best.yaml`` (a complete recipe), ``trials.parquet`` and ``trials.csv``, ``curves.parquet``, and a
        record of each trial.

    Raises:
        UserError: The search space is invalid, or every trial failed.
    """
    check_space(recipe)
    halves, weights = split_validation(store, dataset, split), resolve_weights(store, recipe.model)
    trials = settings.trials
    key = sweep_key(store, recipe, dataset, halves.uri, weights, trials)
    # A sweep's folder can be extended by more trials; the cache entry says with how many it is complete.
    entry_key, prefix = stage_key("tune", {"sweep": key, "trials": trials}, ""), layout.output_prefix("tune", key)
    if (entry := lookup(store, "tune", entry_key)) is not None:
        return StageResult(stage="tune", key=key, uri=store.uri(prefix), cached=True, summary=entry["summary"])
    before = read_trials(store, _key_of_earlier(store, settings.earlier, recipe)) if settings.earlier else []
    if announce is not None:
        announce(key)
    spec = sweep_spec(store, recipe, dataset, halves.uri, key, weights, trials)
    limits = {"concurrency": settings.concurrency or None, "seconds": 3600 * settings.hours or None}
    with connected():
        from hep2flow.distributed.run_sweep import run_sweep  # while the cluster starts

        epochs = run_sweep(spec.model_copy(update=limits), before, log)
    found = read_trials(store, key)
    # Only the last generation of a population has trained to the end.
    candidates = found[-recipe.search.population :] if recipe.search.algorithm == "pbt" else found
    best = best_trial(candidates, recipe.search.metric)
    if best is None:
        reasons = sorted({trial.reason for trial in found if trial.reason})
        raise UserError(f"sweep: none of {len(found)} trials came to a validated epoch; {'; '.join(reasons)[:500]}")
    summary = _summary(found, best, halves)
    with temporary_folder() as folder:
        (folder / "best.yaml").write_text(tuned_recipe(recipe, best.changes).to_yaml(), encoding="utf-8")
        table = trial_table(recipe, found)
        table.to_parquet(folder / "trials.parquet", index=False)
        table.to_csv(folder / "trials.csv", index=False)
        learning_curves(found).to_parquet(folder / "curves.parquet", index=False)
        facts = {
            "kind": "sweep",
            "recipe": recipe.model_dump(mode="json"),
            "dataset": dataset,
            "split": halves.uri,
            "metric": recipe.search.metric,
            **summary,
            "importance": parameter_importance(recipe, found),
            "early_stopping": early_stopping_savings(found, epochs),
        }
        publish(store, folder, prefix, facts)
    if sum(trial.status != "running" for trial in found) >= trials:
        commit(store, "tune", entry_key, {"output": {"uri": store.uri(prefix), "kind": "folder"}, "summary": summary})
    return StageResult(stage="tune", key=key, uri=store.uri(prefix), summary=summary)


def sweep_spec(
    store: Store, recipe: Recipe, dataset: str, halves: str, key: str, weights: InitialWeights | None, trials: int
) -> SweepSpec:
    """What a sweep's trials, and the trainings that judge it, have in common; the data set in every form they try."""
    data, forms = recipe.data, {str(recipe.data.mask): dataset}
    if (masks := recipe.search.space.get("data.mask")) is not None:
        tried = sorted({data.mask, *(masks.choice or ())})
        forms = {mask: masked_variant(store, dataset, data.model_copy(update={"mask": mask})) for mask in tried}
    return SweepSpec(
        store=store.address,
        key=key,
        recipe=recipe,
        datasets=forms,
        halves=halves,
        trials=trials,
        weights=None if weights is None else weights.key,
    )


def sweep_key(
    store: Store, recipe: Recipe, dataset: str, halves: str, weights: InitialWeights | None, trials: int
) -> str:
    """Key of a sweep: what its trials learn from, every leaf of the recipe they read, and the space; not their number."""
    plain = recipe.model_dump(mode="json", exclude={"name", "profile", "paper_model", "eval", "resources"})
    del plain["model"]["weights"]
    inputs: dict[str, Any] = {
        "dataset": open_dataset(store, dataset).digest,
        "halves": split_digest(store, halves),
        "weights": None if weights is None else weights.sha256,
        "recipe": plain,
        # The generations of a population share the epochs: more of them are another sweep.
        "trials": trials if recipe.search.algorithm == "pbt" else None,
    }
    return stage_key("sweep", inputs, code_version("tune"))


def _key_of_earlier(store: Store, earlier: str, recipe: Recipe) -> str:
    if not earlier.startswith("s3://"):
        stages = show_run(store, earlier).stages
        key = next((one.key for one in stages if (one.stage, one.model) == ("tune", recipe.name)), None)
    else:
        key = store.key(earlier).removeprefix("sweeps/").strip("/")
    if key is None or not read_trials(store, key):
        raise UserError(
            f"--from {earlier}: there is no sweep of {recipe.name}; give a run that has one, or the URI that one returned"
        )
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
