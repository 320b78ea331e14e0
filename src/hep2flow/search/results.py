"""What a sweep has found so far: progress, its trials as a table, curves, importances."""

from __future__ import annotations

from typing import Any

import optuna
import pandas as pd
import yaml
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import create_trial

from hep2flow.recipe import Recipe
from hep2flow.search.distributions import parameters
from hep2flow.search.space import value_of, written
from hep2flow.search.trials import Point, Trial, best_trial

SHOWN = 8  # trials of a live table


def progress(recipe: Recipe, trials: list[Trial], count: int, seconds: float, ended_before: int) -> dict[str, Any]:
    """JSON-able: ``trials`` in all, ``ended``, ``stopped``, ``failed``, ``running``, ``best``, ``seconds_left``.

    trials:       so far; count: in all
    seconds:      since this sitting of the sweep began; ended_before: trials that had ended by then
    ``running`` and ``best`` have ``trial``, ``epoch``, ``val_accuracy`` and ``changes``; ``best`` and ``seconds_left`` are
    None before the first trial has ended.
    """
    ended = [trial for trial in trials if trial.status != "running"]
    fresh = len(ended) - ended_before
    best = best_trial(trials, recipe.search.metric)
    return {
        "trials": count,
        "ended": len(ended),
        "stopped": sum(trial.status == "stopped" for trial in trials),
        "failed": sum(trial.status == "failed" for trial in trials),
        "running": [_shown(trial) for trial in trials if trial.status == "running"][:SHOWN],
        "best": None if best is None else _shown(best),
        "seconds_left": seconds / fresh * (count - len(ended)) if fresh > 0 else None,
    }


def _shown(trial: Trial) -> dict[str, Any]:
    best = trial.best_point
    return {
        "trial": trial.number,
        "epoch": trial.points[-1].epoch if trial.points else 0,
        "val_accuracy": None if best is None else best.val_accuracy,
        "changes": trial.changes,
    }


def trial_table(recipe: Recipe, trials: list[Trial]) -> pd.DataFrame:
    """One row per trial: number, status, what it came to at its best epoch, and its value of every key of the space.

    Numbers are numbers; values that are lists, mappings or null are YAML text; a key that was not tried is missing.
    """
    table: pd.DataFrame = pd.DataFrame.from_records([_row(recipe, trial) for trial in trials])
    return table


def _own_text(recipe: Recipe, key: str) -> str:
    """The recipe's own value, as the space writes it where it is one of its choices: 0, say, and not 0.0."""
    value = value_of(recipe, key)
    same = [choice for choice in recipe.search.space[key].choice or () if choice == value]
    return written(same[0] if same else value)


def _row(recipe: Recipe, trial: Trial) -> dict[str, Any]:
    best = trial.best_point
    own = trial.number == 0 and not trial.changes
    values = {key: trial.changes.get(key, _own_text(recipe, key) if own else None) for key in recipe.search.space}
    return {
        "trial": trial.number,
        "status": trial.status,
        "val_accuracy": best.val_accuracy if best else None,
        "val_loss": best.val_loss if best else None,
        "best_epoch": best.epoch if best else None,
        "epochs": trial.points[-1].epoch if trial.points else 0,
        "updates": trial.points[-1].updates if trial.points else 0,
        "seconds": trial.points[-1].seconds if trial.points else None,
        "reason": trial.reason,
        **{
            key: text if text is None or recipe.search.space[key].choice else yaml.safe_load(text)
            for key, text in values.items()
        },
    }


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
