"""The length of a sweep's trials, and of the trainings that judge its winner."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from hep2flow.recipe import Recipe

if TYPE_CHECKING:
    import torch


def trial_updates(recipe: Recipe, labels: torch.Tensor) -> int:
    """Number of updates of a trial: the recipe's own on training cells with these labels, times ``search.length``."""
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
    return recipe.changed(changes)
