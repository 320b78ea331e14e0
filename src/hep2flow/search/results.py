"""What a sweep has found so far: progress, a table of its trials, learning curves, early stopping, importance."""

from typing import Any

import optuna
import pandas as pd
import yaml
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

from hep2flow.recipe import Recipe
from hep2flow.search.distributions import to_optuna_trial
from hep2flow.search.space import recipe_value, yaml_text
from hep2flow.search.trials import CurvePoint, Trial, best_trial

MAX_RUNNING_SHOWN = 8
MIN_TRIALS_FOR_IMPORTANCE = 8


def sweep_progress(recipe: Recipe, trials: list[Trial], count: int, seconds: float, had_ended: int) -> dict[str, Any]:
    """Progress of a running sweep, JSON-able: its trials so far, of ``count`` in all.

    ``seconds`` have passed since this process started or resumed the sweep, when ``had_ended`` trials had ended.

    Returns:
        ``trials`` in all, ``ended``, ``stopped``, ``failed``; ``running`` and ``best`` with ``trial``, ``epoch``,
        ``val_accuracy`` and ``changes``; ``seconds_left``. ``best`` and ``seconds_left`` are None before the first trial
        has ended.
    """
    running = [trial for trial in trials if trial.status == "running"]
    ended = len(trials) - len(running)
    best = best_trial(trials, recipe.search.metric)
    return {
        "trials": count,
        "ended": ended,
        "stopped": sum(trial.status == "stopped" for trial in trials),
        "failed": sum(trial.status == "failed" for trial in trials),
        "running": [_trial_progress(trial) for trial in running[:MAX_RUNNING_SHOWN]],
        "best": None if best is None else _trial_progress(best),
        "seconds_left": seconds / (ended - had_ended) * (count - ended) if ended > had_ended else None,
    }


def _trial_progress(trial: Trial) -> dict[str, Any]:
    best = trial.best_point
    return {
        "trial": trial.number,
        "epoch": trial.points[-1].epoch if trial.points else 0,
        "val_accuracy": None if best is None else best.val_accuracy,
        "changes": trial.changes,
    }


def trial_table(recipe: Recipe, trials: list[Trial]) -> pd.DataFrame:
    """One row per trial: number, status, results at its best epoch, and its value of every key of the space.

    Numbers are numbers; values that are choices are YAML text; a key that was not tried is missing.
    """
    table: pd.DataFrame = pd.DataFrame.from_records([_table_row(recipe, trial) for trial in trials])
    return table


def _table_row(recipe: Recipe, trial: Trial) -> dict[str, Any]:
    best, last = trial.best_point, trial.points[-1] if trial.points else None
    row = {
        "trial": trial.number,
        "status": trial.status,
        "val_accuracy": best.val_accuracy if best else None,
        "val_loss": best.val_loss if best else None,
        "best_epoch": best.epoch if best else None,
        "epochs": last.epoch if last else 0,
        "updates": last.updates if last else 0,
        "seconds": last.seconds if last else None,
        "reason": trial.reason,
    }
    for key, domain in recipe.search.space.items():
        text = trial.changes.get(key)
        if trial.number == 0 and not trial.changes:
            # The recipe's own value as the space writes it, where it is one of its choices: 0, say, and not 0.0.
            own = recipe_value(recipe, key)
            text = yaml_text(next((choice for choice in domain.choice or () if choice == own), own))
        row[key] = text if text is None or domain.choice else yaml.safe_load(text)
    return row


def learning_curves(trials: list[Trial]) -> pd.DataFrame:
    """One row per validated epoch of each trial: trial, and the fields of :class:`CurvePoint`."""
    rows = [{"trial": trial.number, **point.model_dump()} for trial in trials for point in trial.points]
    table: pd.DataFrame = pd.DataFrame.from_records(rows, columns=["trial", *CurvePoint.model_fields])
    return table


def early_stopping_savings(trials: list[Trial], epochs: int) -> dict[str, Any]:
    """Epochs and seconds that the trials ran, and that early stopping saved, estimated from each trial's own speed.

    ``epochs`` are those of a trial that is not stopped.
    """
    last = {trial.number: trial.points[-1] for trial in trials if trial.points}
    epochs_run = epochs_saved = 0
    seconds_run: float = 0
    seconds_saved: float = 0
    for trial in (trial for trial in trials if trial.points):
        end, parent = last[trial.number], None if trial.parent is None else last.get(trial.parent)
        # The curve includes the parent's, which is counted there.
        epochs_run += end.epoch - (parent.epoch if parent else 0)
        seconds_run += end.seconds - (parent.seconds if parent else 0)
        if trial.status == "stopped":
            epochs_saved += epochs - end.epoch
            seconds_saved += (epochs - end.epoch) * end.seconds / end.epoch
    return {
        "epochs_run": epochs_run,
        "epochs_saved": epochs_saved,
        "seconds_run": round(seconds_run, 1),
        "seconds_saved": round(seconds_saved, 1),
    }


def parameter_importance(recipe: Recipe, trials: list[Trial]) -> dict[str, float] | None:
    """Share of each key in whether a trial is among the better ones (PED-ANOVA, Watanabe et al. 2023; Optuna's).

    It uses only which trials are better, not by how much, so trials that were stopped early count too.

    Returns:
        Key -> share, together 1; None for too few trials, or where all have the same score.
    """
    study = optuna.create_study(direction="maximize")
    study.add_trials([found for trial in trials if (found := to_optuna_trial(recipe, trial)) is not None])
    scores = {trial.value for trial in study.trials}
    if len(study.trials) < MIN_TRIALS_FOR_IMPORTANCE or len(scores) < 2:
        return None
    shares = get_param_importances(study, evaluator=PedAnovaImportanceEvaluator())
    total = sum(shares.values())
    return {key: round(share / total, 4) for key, share in shares.items()} if total else None
