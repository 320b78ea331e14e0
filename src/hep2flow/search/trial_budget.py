"""What a sweep spends: the length of its trials, and the seeds of the trainings that follow it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from hep2flow.recipe import Recipe, parse_recipe

if TYPE_CHECKING:
    import torch

JUDGING_SEEDS = 5  # trainings of each side, by default


def trial_updates(recipe: Recipe, labels: torch.Tensor) -> int:
    """Number of updates of a trial: the recipe's own on training cells with these labels, times ``search.length``."""
    # Imported here: the seeds below are needed where there is no torch.
    from hep2flow.training.trainer import training_length

    return max(1, math.ceil(recipe.search.length * training_length(recipe, labels).updates))


def with_updates(recipe: Recipe, labels: torch.Tensor, updates: int) -> Recipe:
    """The recipe with exactly so many updates on training cells with these labels, int64 (n,).

    What is counted in epochs or updates, warm-up and gradual unfreezing, keeps its share of the training.
    """
    from hep2flow.training.trainer import training_length

    length, schedule, optim = training_length(recipe, labels), recipe.schedule, recipe.optim
    share = updates / length.updates
    changes = {
        "train.epochs": math.ceil(updates / length.updates_per_epoch),
        "train.max_updates": updates,
        "schedule.warmup_epochs": schedule.warmup_epochs * share,
        "schedule.warmup_updates": round(schedule.warmup_updates * share),
    }
    if optim.unfreeze_every is not None:
        changes["optim.unfreeze_every"] = max(1, round(optim.unfreeze_every * share))
    return parse_recipe(
        recipe.model_dump(mode="json"), recipe.name, [f"{key}={value}" for key, value in changes.items()]
    )


def fresh_seeds(recipe: Recipe, count: int, skip: int = 0) -> list[int]:
    """Seeds that no trial of the recipe's sweep had, after ``skip`` others of them."""
    return [recipe.train.seed + 1 + skip + index for index in range(count)]
