"""Sentences on the data: what subsets share, how cells are distributed, masked and augmented."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hep2flow.reporting.figures import SUBSET_NAMES, display_name
from hep2flow.reporting.report_content import ModelResult, ReportContent


def leakage(content: ReportContent) -> str:
    """What cells of different subsets share: specimens, blocks of IDs, and near-duplicate images."""
    sentences = [shared_specimens(content.split["shared_specimens"])]
    if found := content.leakage:
        if found["test_specimens"] is not None:
            sentences.append(shared_test_specimens(found["test_specimens"]))
        if blocks := found["id_blocks"]:
            sentences.append(
                f"Of {blocks['of']} blocks of contiguous IDs, a proxy for the unpublished specimens, {blocks['shared']} "
                f"{'has' if blocks['shared'] == 1 else 'have'} cells in more than one subset."
            )
        sentences.append(duplicates(found["duplicates"]))
    return " ".join(sentences)


def shared_specimens(shared: int | None) -> str:
    """How many specimens have cells in both training and validation; None: specimens are unknown."""
    if shared is None:
        return (
            "Leakage: specimens are unknown, so cells of one specimen may stand in both training and validation; "
            "validation accuracy may flatter."
        )
    if shared == 0:
        return "Leakage: no specimen has cells in both training and validation."
    return (
        f"Leakage: {_specimens_have(shared)} cells in both training and "
        "validation; validation accuracy flatters, and so does the choice of the epoch."
    )


def shared_test_specimens(shared: int) -> str:
    """How many specimens have cells in the test set and elsewhere."""
    if shared == 0:
        return "No specimen of the test set has cells in another subset."
    return f"{_specimens_have(shared)} cells in the test set and in training or validation too; test accuracy flatters."


def _specimens_have(shared: int) -> str:
    return f"{shared} {'specimen has' if shared == 1 else 'specimens have'}"


def duplicates(found: Mapping[str, Any]) -> str:
    """How many pairs of cells of different subsets are near-duplicates, and the closest pair."""
    if not found["count"]:
        return "No two cells of different subsets are near-duplicates."
    closest = found["pairs"][0]
    (one, other), (here, there) = closest["cells"], (SUBSET_NAMES[subset] for subset in closest["subsets"])
    how = "equal to the pixel" if closest["correlation"] is None else f"correlation {closest['correlation']:.3f}"
    pairs = "1 pair of cells of different subsets is a near-duplicate"
    if found["count"] > 1:
        pairs = f"{found['count']:,} pairs of cells of different subsets are near-duplicates"
    return (
        f"{pairs}, {found['equal']:,} equal to the pixel; the closest are {one} ({here}) and {other} ({there}), {how}. "
        "Accuracy on such cells flatters."
    )


def class_balance(content: ReportContent) -> str:
    """How unequal the patterns are in the training cells."""
    counts = {pattern: n for pattern, n in content.split["pattern_counts"]["train"].items() if n}
    most, least = max(counts, key=counts.__getitem__), min(counts, key=counts.__getitem__)
    return (
        f"Among the training cells {display_name(most)} ({counts[most]}) is {counts[most] / counts[least]:.1f} times "
        f"as frequent as {display_name(least)} ({counts[least]})."
    )


def cell_sizes(content: ReportContent) -> str:
    """Range and median of the cells' width and height."""
    width, height = content.cells["width"], content.cells["height"]
    return (
        f"Cells are {width.min()} to {width.max()} pixels wide and {height.min()} to {height.max()} high "
        f"(median {width.median():.0f} × {height.median():.0f}); brightness is shown as stored."
    )


def masking(content: ReportContent) -> str:
    """What was masked, and where the masks came from."""
    facts = content.dataset.get("mask")
    if not facts or facts["mode"] == "none":
        return "The images were not masked."
    derived = facts["derived"]  # a count; True in data sets of earlier versions
    how_many = "" if not derived else ", derived" if derived is True else f", {derived:,} derived"
    return (
        f"Masking ({facts['mode']}) keeps the pixels inside the mask and sets every other pixel to 0; "
        f"masks: {facts['source']}{how_many}{' from the images' if derived else ''}."
    )


def augmentations(model: ModelResult) -> str:
    """Which augmentations made the cells of a training batch."""
    recipe = model.recipe
    mixing = {name: recipe["batch"][name] for name in ("mixup", "cutmix")}
    active = [_augmentation(name, value) for name, value in {**recipe["augment"], **mixing}.items() if value]
    if not active:
        return "The recipe augments nothing: the cells are resized only."
    mixed = "; each cell is mixed with the one whose pattern is named second" if any(mixing.values()) else ""
    return f"Of the first batch of the first epoch, as its network was shown them, made by {', '.join(active)}{mixed}."


def _augmentation(name: str, value: Any) -> str:
    """An augmentation in words, for example ``cutout (side 0.5)``."""
    words = name.replace("_", " ")
    if value is True:
        return words
    if isinstance(value, Mapping):
        return f"{words} ({', '.join(f'{key} {_number_or_range(entry)}' for key, entry in value.items() if entry)})"
    return f"{words} ({_number_or_range(value)})"


def _number_or_range(value: Any) -> str:
    return " to ".join(f"{end:g}" for end in value) if isinstance(value, Sequence) else f"{value:g}"
