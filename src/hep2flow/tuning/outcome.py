"""What a sweep has found, beside its table: curves, what early stopping saved, which keys mattered."""

from __future__ import annotations

from typing import Any

import optuna
import pandas as pd
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import create_trial

from hep2flow.recipe import Recipe
from hep2flow.tuning.distributions import parameters
from hep2flow.tuning.trials import Point, Trial

FEWEST = 8  # trials that an importance may rest on
COLUMNS = ("trial", *Point.model_fields)


def curves(trials: list[Trial]) -> pd.DataFrame:
    """One row per validated epoch of each trial: trial, and the fields of :class:`Point`."""
    rows = [{"trial": trial.number, **point.model_dump()} for trial in trials for point in trial.points]
    table: pd.DataFrame = pd.DataFrame.from_records(rows, columns=list(COLUMNS))
    return table


def saved(trials: list[Trial], epochs: int) -> dict[str, Any]:
    """Epochs and seconds that all trials took, and those that stopped ones were spared, an estimate from their own speed.

    epochs: of a trial that nobody stops
    """
    begun = {trial.number: trial.points[-1] for trial in trials if trial.points}
    own = {trial.number: _since(trial, begun) for trial in trials if trial.points}
    left = {
        trial.number: epochs - trial.points[-1].epoch for trial in trials if trial.status == "stopped" and trial.points
    }
    return {
        "epochs_run": sum(count for count, _ in own.values()),
        "epochs_saved": sum(left.values()),
        "seconds_run": round(sum(seconds for _, seconds in own.values()), 1),
        "seconds_saved": round(sum(count * begun[n].seconds / begun[n].epoch for n, count in left.items()), 1),
    }


def _since(trial: Trial, last: dict[int, Point]) -> tuple[int, float]:
    """Epochs and seconds of a trial without its parents'."""
    parent = last.get(trial.parent) if trial.parent is not None else None
    end = trial.points[-1]
    return (end.epoch, end.seconds) if parent is None else (end.epoch - parent.epoch, end.seconds - parent.seconds)


def importance(recipe: Recipe, trials: list[Trial]) -> dict[str, float] | None:
    """Share of each key in whether a trial is among the better ones (PED-ANOVA, Watanabe et al. 2023; Optuna's).

    It asks only which trials are better, not by how much: so trials that were stopped early may count.
    None for fewer than eight trials, or where none differs.
    """
    study = optuna.create_study(direction="maximize")
    for trial in trials:
        score, found = trial.score(recipe.search.metric), parameters(recipe, trial.changes)
        if trial.status in ("finished", "stopped") and score is not None and found is not None:
            values, distributions = found
            study.add_trial(create_trial(value=score, params=values, distributions=distributions))
    if len(study.trials) < FEWEST or len({trial.value for trial in study.trials}) < 2:
        return None
    shares = get_param_importances(study, evaluator=PedAnovaImportanceEvaluator())
    total = sum(shares.values())
    return {key: round(share / total, 4) for key, share in shares.items()} if total else None
