"""A sweep's trials as one table."""

from __future__ import annotations

from typing import Any

import pandas as pd
import yaml

from hep2flow.recipe import Recipe
from hep2flow.tuning.space import value_of, written
from hep2flow.tuning.trials import Trial


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
