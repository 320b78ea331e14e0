"""How long a trial trains, and under which seeds the finalists train."""

from __future__ import annotations

import math

import torch

from hep2flow.recipe import Recipe, parse_recipe
from hep2flow.training.trainer import plan


def of_length(recipe: Recipe, labels: torch.Tensor, updates: int) -> Recipe:
    """The recipe with exactly so many updates on training cells with these labels, int64 (n,).

    What is counted in epochs or updates keeps its share of the whole: warm-up and gradual unfreezing.
    """
    own, schedule, optim = plan(recipe, labels), recipe.schedule, recipe.optim
    share = updates / own.updates
    changes = {
        "train.epochs": math.ceil(updates / own.updates_per_epoch),
        "train.max_updates": updates,
        "schedule.warmup_epochs": schedule.warmup_epochs * share,
        "schedule.warmup_updates": round(schedule.warmup_updates * share),
    }
    if optim.unfreeze_every is not None:
        changes["optim.unfreeze_every"] = max(1, round(optim.unfreeze_every * share))
    return parse_recipe(
        recipe.model_dump(mode="json"), recipe.name, [f"{key}={value}" for key, value in changes.items()]
    )


def trial_updates(recipe: Recipe, labels: torch.Tensor) -> int:
    """Updates of a trial of the recipe: its own, times ``search.length``."""
    return max(1, math.ceil(recipe.search.length * plan(recipe, labels).updates))


JUDGING = 5  # trainings of each side, where nobody says how many


def fresh_seeds(recipe: Recipe, count: int, skip: int = 0) -> list[int]:
    """Seeds that no trial of the recipe's sweep had; ``skip`` of them are somebody else's."""
    return [recipe.train.seed + 1 + skip + index for index in range(count)]
