"""Freezing of the feature layers, and gradual unfreezing, as the paper suggests."""

import re

import torch

from hep2flow.errors import UserError
from hep2flow.network.model import build_network, head_parameters, timm_network
from hep2flow.recipe import Optim, Recipe

# timm's names: ConvNeXt and CoAtNet number their stages from 0, CoaT its serial ones from 1.
_STAGE = re.compile(r"stages\.(\d+)\.|(?:cls_token|patch_embed|crpe|cpe|serial_blocks)(\d)")
_STEM = "stem."
STAGES = "stages:"
TOP = 99  # norms, and CoaT's parallel blocks: above every stage, below the head


def stage_of(name: str) -> int:
    """Stage of a parameter by its name: 0 the stem, 1 and up the stages, TOP what follows them."""
    if name.startswith(_STEM):
        return 0
    if (found := _STAGE.match(name)) is None:
        return TOP
    return int(found[1]) + 1 if found[1] is not None else int(found[2])


def stage_numbers(network: torch.nn.Module) -> list[int]:
    """The stages of a network, from 1; empty if its parameters' names show none."""
    names = [name for name, _ in timm_network(network).named_parameters()]
    return sorted({stage for stage in map(stage_of, names) if 0 < stage < TOP})


def check_freezing(recipe: Recipe) -> None:
    """Check that the network has the stages to freeze, before any data is read; UserError naming the recipe's key."""
    freeze = recipe.optim.freeze
    if freeze.startswith(STAGES):
        with torch.device("meta"):
            known = stage_numbers(build_network(recipe.model, classes=2))
        if int(freeze.removeprefix(STAGES)) not in known:
            allowed = ", ".join(["none", "backbone", *(f"{STAGES}{stage}" for stage in known)])
            stages = f"{recipe.model.network} has {len(known) or 'no named'} stages"
            raise UserError(f"optim.freeze: {stages}, not {freeze}; allowed: {allowed}")


class Freezing:
    """Applies ``optim.freeze`` and ``optim.unfreeze_every`` to a network, epoch by epoch."""

    def __init__(self, network: torch.nn.Module, section: Optim) -> None:
        self.model, self.unfreeze_every = timm_network(network), section.unfreeze_every
        head = set(map(id, head_parameters(self.model)))
        named = {"none": -1, "backbone": TOP}
        highest = named[section.freeze] if section.freeze in named else int(section.freeze.removeprefix(STAGES))
        body = [(stage_of(name), each) for name, each in self.model.named_parameters() if id(each) not in head]
        self.frozen = [(stage, parameter) for stage, parameter in body if stage <= highest]
        self.frozen_stages = sorted({stage for stage, _ in self.frozen})

    def before_epoch(self, epoch: int) -> bool:
        """Freeze what is frozen in this epoch (from 1); returns whether the parameters that are trained changed.

        Call after ``network.train()``.
        """
        # Stages are unfrozen from the top down, one every ``unfreeze_every`` epochs.
        unfrozen = (epoch - 1) // self.unfreeze_every if self.unfreeze_every is not None else 0
        still_frozen = self.frozen_stages[: max(len(self.frozen_stages) - unfrozen, 0)]
        changed = False
        for stage, parameter in self.frozen:
            changed |= parameter.requires_grad == (stage in still_frozen)
            parameter.requires_grad_(stage not in still_frozen)
        # Frozen batch norms must not update their running statistics either.
        for module in self.model.modules():
            own = list(module.parameters(recurse=False))
            if isinstance(module, torch.nn.modules.batchnorm._BatchNorm) and own:
                module.train(any(parameter.requires_grad for parameter in own))
        return changed
