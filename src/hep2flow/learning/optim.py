"""Optimizer and learning-rate schedule, from timm's parts."""

from __future__ import annotations

import torch
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler

from hep2flow.recipe import Optim, Recipe


def build_optimizer(model: torch.nn.Module, section: Optim) -> torch.optim.Optimizer:
    """timm ``create_optimizer_v2``; biases and norms are not decayed, timm's default."""
    memory = {"momentum": section.betas[0]} if section.name == "sgd" else {"betas": section.betas}
    optimizer: torch.optim.Optimizer = create_optimizer_v2(
        model, opt=section.name, lr=section.lr, weight_decay=section.weight_decay, **memory
    )
    return optimizer


class LearningRate:
    """Sets the learning rate before each update: linear warm-up, then a cosine to 0, or constant.

    A warm-up of n updates starts at 1/n of the rate: at 0 the first update would be lost.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, recipe: Recipe, updates: int, updates_per_epoch: int) -> None:
        schedule = recipe.schedule
        self.optimizer = optimizer
        warmup = schedule.warmup_updates or round(schedule.warmup_epochs * updates_per_epoch)
        # A warm-up as long as the training would leave no cosine: a short try of a long recipe keeps its proportions.
        warmup = min(warmup, updates // 2)
        self.scheduler = (
            CosineLRScheduler(
                optimizer,
                t_initial=updates,
                warmup_t=warmup,
                warmup_lr_init=recipe.optim.lr / max(warmup, 1),
                warmup_prefix=False,
                t_in_epochs=False,
                cycle_limit=1,
            )
            if schedule.name == "cosine"
            else None
        )

    def before_update(self, update: int) -> float:
        """Set and return the rate of update number ``update`` (from 0)."""
        if self.scheduler is not None:
            self.scheduler.step_update(update)
        return float(self.optimizer.param_groups[0]["lr"])
