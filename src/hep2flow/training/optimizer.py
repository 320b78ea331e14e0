"""Optimizer and learning-rate schedule, from timm's parts."""

import math
from functools import partial
from typing import Any

import torch
from timm.optim import create_optimizer_v2
from timm.optim._param_groups import param_groups_layer_decay, param_groups_weight_decay
from timm.scheduler import CosineLRScheduler, StepLRScheduler

from hep2flow.network.model import head_parameters, timm_network
from hep2flow.recipe import Optim, Recipe


def build_optimizer(network: torch.nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Build timm's optimizer at the recipe's rate, without weight decay of biases and norms, timm's default.

    Call before any freezing: timm leaves frozen parameters out, so that they could not be unfrozen.
    """
    section = recipe.optim
    options: dict[str, Any] = {"momentum": section.betas[0]} if section.name == "sgd" else {"betas": section.betas}
    options |= {"fused": True} if section.fused else {}
    options |= {"opt": section.name, "lr": recipe.learning_rate, "weight_decay": section.weight_decay}
    groups = partial(_groups, section=section)
    optimizer: torch.optim.Optimizer = create_optimizer_v2(timm_network(network), param_group_fn=groups, **options)
    return optimizer


def _groups(model: torch.nn.Module, section: Optim) -> list[dict[str, Any]]:
    """Parameter groups with ``weight_decay`` and ``lr_scale``: layer decay, times the multiplier for the head."""
    undecayed: set[str] = getattr(model, "no_weight_decay", set)()
    decay = {"weight_decay": section.weight_decay, "no_weight_decay_list": undecayed}
    groups: list[dict[str, Any]] = (
        param_groups_weight_decay(model, **decay)
        if section.layer_decay is None
        else param_groups_layer_decay(model, **decay, layer_decay=section.layer_decay)
    )
    head = set(map(id, head_parameters(model)))
    split = []
    for group in groups:
        scale = group.get("lr_scale", 1.0)
        for in_head, factor in ((False, 1.0), (True, section.head_multiplier)):
            parameters = [parameter for parameter in group["params"] if (id(parameter) in head) is in_head]
            if parameters:
                split.append({"params": parameters, "weight_decay": group["weight_decay"], "lr_scale": scale * factor})
    return split


class LearningRate:
    """Sets the learning rate before each update: linear warm-up, then cosine annealing to 0, or constant."""

    def __init__(self, optimizer: torch.optim.Optimizer, recipe: Recipe, updates: int, updates_per_epoch: int) -> None:
        schedule = recipe.schedule
        self.optimizer = optimizer
        cycle = math.ceil(updates / schedule.cycles)
        # A short trial of a long recipe must not be all warm-up.
        warmup = min(schedule.warmup_updates or round(schedule.warmup_epochs * updates_per_epoch), cycle // 2)
        # Warm-up from 1/n of the rate: at 0 the first update would be lost.
        first = {"warmup_t": warmup, "warmup_lr_init": recipe.learning_rate / max(warmup, 1), "t_in_epochs": False}
        self.scheduler: CosineLRScheduler | StepLRScheduler
        if schedule.name == "cosine":
            cycles = {"cycle_limit": schedule.cycles, "cycle_decay": schedule.cycle_decay, "warmup_prefix": False}
            self.scheduler = CosineLRScheduler(optimizer, t_initial=cycle, **cycles, **first)
        else:
            self.scheduler = StepLRScheduler(optimizer, decay_t=updates, decay_rate=1.0, **first)

    def before_update(self, update: int) -> float:
        """Set every group's rate for update number ``update`` (from 0); returns the rate before the groups' scales."""
        self.scheduler.step_update(update)
        group = self.optimizer.param_groups[0]
        return float(group["lr"] / group["lr_scale"])
