"""Combinations of a recipe's values that no single key can refuse."""

import difflib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hep2flow.recipe.schema import Augment, Model, Recipe, Search

# CoaT and CoAtNet halve the image five times and join maps of different depth, or attend in windows.
_IN_STRIDES_OF_32 = ("coat_", "coatnet_", "coatnext_", "maxvit_", "maxxvit_")

# A training's state resumes under other values of these: network, optimizer and schedule keep their shapes.
_CHANGED_BY_PBT: tuple[str, ...] = ("augment.", "batch.", "optim.lr", "optim.weight_decay", "optim.head_multiplier")
_CHANGED_BY_PBT += ("model.drop_path_rate", "train.clipping")


def impossible_combinations(recipe: "Recipe", searchable: Sequence[str]) -> Iterator[str]:
    """What cannot be done together, each as ``key: why, and what is allowed``.

    The fields are valid one by one; ``searchable`` is every key that a sweep may change. Knows of the networks what can be
    known without torch, which not every machine that reads recipes has; :func:`hep2flow.network.model.check_network` checks
    the rest.
    """
    yield from _check_model(recipe.model)
    yield from _check_augment(recipe.augment)
    yield from _check_training(recipe)
    yield from _check_optimization(recipe)
    yield from _check_search(recipe.search, searchable)


def _check_model(model: "Model") -> Iterator[str]:
    if model.network.startswith(_IN_STRIDES_OF_32) and model.image_size % 32:
        below = model.image_size // 32 * 32
        yield (
            f"model.image_size: {model.network} takes multiples of 32, not {model.image_size}; "
            f"next are {max(below, 32)} and {below + 32}"
        )
    if model.network.startswith("coat_") and model.gradient_checkpointing:
        yield "model.gradient_checkpointing: timm's CoaT has none; allowed: false"
    if len(set(model.aux_features)) < len(model.aux_features):
        yield f"model.aux_features: one is named twice in {', '.join(model.aux_features)}"


def _check_augment(augment: "Augment") -> Iterator[str]:
    for key in ("random_erasing", "random_resized_crop"):
        if (section := getattr(augment, key)) is not None:
            yield from _check_range(f"augment.{key}.scale", section.scale)
            yield from _check_range(f"augment.{key}.ratio", section.ratio)
            if section.scale[1] > 1:
                yield f"augment.{key}.scale: is a share of the image's area, at most 1, not {section.scale[1]}"
    for key in ("brightness", "contrast", "saturation"):
        yield from _check_range(f"augment.color_jitter.{key}", getattr(augment.color_jitter, key, 0.0))


def _check_range(key: str, value: float | tuple[float, float]) -> Iterator[str]:
    if isinstance(value, tuple) and value[0] > value[1]:
        yield f"{key}: a range is [low, high], not [{value[0]:g}, {value[1]:g}]"


def _check_training(recipe: "Recipe") -> Iterator[str]:
    batch, train, optim, workers = recipe.batch, recipe.train, recipe.optim, recipe.resources.workers
    if (batch.mixup or batch.cutmix) and train.batch_size < 2:
        yield "train.batch_size: mixup and cutmix mix two cells, so at least 2; or batch.mixup=0 and batch.cutmix=0"
    if train.batch_size % train.accumulation:
        divisors = [str(part) for part in range(1, train.batch_size + 1) if train.batch_size % part == 0]
        yield (
            f"train.accumulation: {train.accumulation} does not divide train.batch_size {train.batch_size}; "
            f"allowed: {', '.join(divisors)}"
        )
    if workers.min > workers.max:
        yield f"resources.workers: min {workers.min} is above max {workers.max}; give one number, or min up to max"
    if train.precision == "fp16" and not recipe.resources.gpus_per_worker:
        yield "train.precision: fp16 needs a GPU (resources.gpus_per_worker of 1); without one allowed: fp32, bf16"
    if optim.fused and optim.name == "adamp":
        yield "optim.fused: timm's AdamP has no such form; allowed: false, or optim.name=adam, adamw or sgd"


def _check_optimization(recipe: "Recipe") -> Iterator[str]:
    schedule, optim, batch_size = recipe.schedule, recipe.optim, recipe.train.batch_size
    if schedule.warmup_epochs and schedule.warmup_updates:
        yield "schedule: give warmup_epochs or warmup_updates, not both"
    if schedule.name == "constant" and (schedule.cycles > 1 or schedule.cycle_decay < 1):
        yield "schedule.cycles: constant has no restarts; allowed with schedule.name=constant: cycles 1, cycle_decay 1"
    if schedule.cycle_decay < 1 and schedule.cycles == 1 and schedule.name == "cosine":
        yield "schedule.cycle_decay: one cycle has no restart; set schedule.cycles to 2 or more"
    if optim.lr_scaling is None and optim.lr_batch_size not in (None, batch_size):
        rates = ", ".join(f"{rule} ({rate:.3g})" for rule, rate in optim.scaled_lr(batch_size).items())
        yield (
            f"train.batch_size: optim.lr {optim.lr:g} is for batches of {optim.lr_batch_size} cells, "
            f"not {batch_size}; say what becomes of it, optim.lr_scaling: {rates}"
        )
    if optim.freeze != "none" and recipe.model.weights == "none":
        yield (
            f"optim.freeze: {optim.freeze} would freeze random weights (model.weights is none); "
            "give weights, or optim.freeze=none"
        )
    if optim.unfreeze_every is not None and optim.freeze == "none":
        yield "optim.unfreeze_every: nothing is frozen; set optim.freeze to backbone or stages:N, or this to null"


def _check_search(search: "Search", searchable: Sequence[str]) -> Iterator[str]:
    for key in search.space:
        if key not in searchable:
            near = difflib.get_close_matches(key, searchable, n=3) or ["optim.lr"]
            yield f"search.space: {key} is no key that a sweep may change; allowed are for example {', '.join(near)}"
        elif search.algorithm == "pbt" and not key.startswith(_CHANGED_BY_PBT):
            yield (
                f"search.space: {key} cannot change in the middle of a training, as pbt changes keys; "
                f"it takes {', '.join(_CHANGED_BY_PBT)}; or choose another search.algorithm"
            )
    if "loss.name" in search.space and search.metric == "loss":
        yield "search.metric: losses of different loss.name cannot be compared; set it to accuracy"
