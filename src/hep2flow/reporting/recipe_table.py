"""The README's table: the paper's settings of its two models beside the shipped recipes' values."""

from collections.abc import Mapping
from functools import reduce
from typing import Any, NamedTuple

import yaml

from hep2flow.recipe import Recipe, load_recipe

CONVNEXT, COAT = "convnext-b", "coat-mini"
HEADER = ("the paper's row", "ConvNeXt-B", "Custom CoAtNet", "recipe key", f"`{CONVNEXT}`", f"`{COAT}`", "remark")


class Row(NamedTuple):
    """A row of the paper, or what its text is about; its words for both models; the recipe's key, as ``--set`` takes it."""

    topic: str
    convnext: str
    coat: str
    key: str


def _same(topic: str, words: str, key: str) -> Row:
    return Row(topic, words, words, key)


TABLE_1 = (
    Row("network, weights", "ConvNeXt-B, ImageNet 22K", "Custom CoAtNet, JFT-3B, timm's “coat-mini”", "model.network"),
    _same("initialised with", "pre-trained models", "model.weights"),
    _same("image size", "224²", "model.image_size"),
    _same("resizing", "not given", "data.interpolation"),
    Row("RandomErasing", "None", "p=0.5, scale=(0.02,0.33), ratio=(0.3,3.3)", "augment.random_erasing"),
    _same("RandomHorizontalFlip", "p=0.5", "augment.horizontal_flip"),
    _same("RandomVerticalFlip", "p=0.5", "augment.vertical_flip"),
    Row("ColorJitter", "None", "brightness=(0.3,1.5), contrast=0.5, saturation=0.3, hue=0.01", "augment.color_jitter"),
    _same("Normalized", "(0.5, 0.25)", "data.mean"),
    _same("Normalized", "(0.5, 0.25)", "data.std"),
    Row("Cutout", "YES", "None", "augment.cutout"),
    Row("RandomResizedCrop", "None", "scale=(0.25,1.0), ratio=(0.75,1.33)", "augment.random_resized_crop"),
    _same("RandomRotation", "None", "augment.quarter_turns"),
    Row("Rand Augment", "YES", "None", "augment.rand_augment"),
)
TABLE_2 = (
    _same("Dataset split", "5:5", "data.split.train_fraction"),
    _same("Dataset split", "predefined", "data.split.seed"),
    Row("Optimizer", "Adam", "AdamP", "optim.name"),
    Row("Loss function", "Soft Target Cross Entropy", "Binary Cross Entropy", "loss.name"),
    Row("Base learning rate", "4e-6", "1e-5", "optim.lr"),
    Row("Weight decay", "0", "0.1", "optim.weight_decay"),
    _same("Optimizer momentum", "β1, β2 = 0.9, 0.999", "optim.betas"),
    Row("Batch size", "32", "16", "train.batch_size"),
    Row("Training epochs", "30", "50", "train.epochs"),
    _same("Learning rate schedule", "cosine decay", "schedule.name"),
    Row("Warm-up epochs", "0", "10", "schedule.warmup_epochs"),
    Row("Warm-up schedule", "None", "linear", "schedule.warmup_updates"),
    Row("Label smoothing", "0.1", "None", "batch.label_smoothing"),
    Row("Mixup", "0.8", "None", "batch.mixup"),
    Row("Cutmix", "1.0", "None", "batch.cutmix"),
    Row("Mixup or cutmix", "not given", "None", "batch.switch_probability"),
    Row("TTA", "YES", "None", "eval.tta"),
)
TEXT = (
    Row("mask (section 3.1.1)", "white: the pixel remains, else it is set to black", "same", "data.mask"),
    Row("model saved (3.2)", "“the highest accuracy on the valid set”", "same", "select.metric"),
    Row("at equal accuracy (3.2)", "“the model with lower loss”", "same", "select.tie"),
    Row("test set (3.2)", "“kept invisible before the end of training”", "same", "data.split.protocol"),
)
ROWS = (*TABLE_1, *TABLE_2, *TEXT)
REMARKS = {  # recipe key -> what is unclear in the paper, or our choice
    "model.network": "`coat_mini` is CoaT, not CoAtNet; ImageNet-1k, because JFT-3B weights were never public",
    "model.weights": "timm's, by the network's tag",
    "data.interpolation": "our choice; straight to the square, or the crop to it",
    "augment.color_jitter": "as torchvision reads it: a pair is the range, a number x is 1 ± x (the hue: ± x)",
    "data.mean": "read as mean and deviation, of every channel",
    "augment.cutout": "no size is given; our choice: one square hole of this side",
    "augment.quarter_turns": "recipes turn by quarters only; RandAugment rotates among other things",
    "augment.rand_augment": "no N and M are given; our choice",
    "data.split.train_fraction": (
        "drawn per pattern, so cells of one specimen lie on both sides; `data.split.protocol=specimen` parts them"
    ),
    "data.split.seed": "stored, and the same for both models",
    "optim.name": "timm's AdamP is Nesterov's with a weight-decay ratio of 0.01; its authors' is not, and has 0.1",
    "loss.name": "binary: each pattern against all others",
    "optim.lr": "low for a fresh head: try `optim.head_multiplier`, `optim.layer_decay`",
    "optim.weight_decay": "not of biases and norms, timm's habit",
    "train.batch_size": "of all workers together; another needs `optim.lr_scaling`",
    "train.epochs": "of the 361 training cells: 360 and 1,150 updates in all",
    "schedule.name": "to 0, update by update",
    "schedule.warmup_updates": "linear always; this key counts updates instead",
    "batch.label_smoothing": "timm's binary loss smooths by 0.1 unless told not to",
    "batch.switch_probability": "timm's choice: one of the two per batch",
    "eval.tta": "undefined there; our reading: mean softmax of the 8 flips and quarter turns",
    "select.metric": "after each epoch",
    "data.split.protocol": (
        "an official test set is read once, by `evaluate`; `whole-train` is Appendix A, and says so everywhere"
    ),
}


def value_of(recipe: Recipe, key: str) -> str:
    """The value of a recipe's dotted key as YAML on one line: ``--set key=VALUE`` gives it back."""
    return value_in(recipe.model_dump(mode="json"), key)


def value_in(recipe: Mapping[str, Any], key: str) -> str:
    """As :func:`value_of`, of a recipe as nested mappings.

    Raises:
        KeyError: The recipe has no such key.
    """
    value: Any = reduce(lambda branch, part: branch[part], key.split("."), recipe)
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=float("inf"))
    return text.removesuffix("...\n").rstrip("\n")


def render() -> str:
    """The table in Markdown: Tables 1 and 2 of the paper row by row, then the choices that only its text states."""
    recipes = load_recipe(CONVNEXT), load_recipe(COAT)
    lines = [HEADER, ("---",) * len(HEADER)]
    for row in ROWS:
        values = (f"`{value_of(recipe, row.key)}`" for recipe in recipes)
        lines.append((*row[:3], f"`{row.key}`", *values, REMARKS.get(row.key, "")))
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
