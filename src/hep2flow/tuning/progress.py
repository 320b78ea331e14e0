"""How far a sweep is, as whoever waits for it wants to see it."""

from __future__ import annotations

from typing import Any

from hep2flow.recipe import Recipe
from hep2flow.tuning.trials import Trial, best_trial

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
