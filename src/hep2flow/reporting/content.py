"""What a report is made of: plain values, read from the store by the report stage, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd


@dataclass(frozen=True)
class ModelResult:
    """One trained and evaluated model.

    title:       what a person calls it, for example ``convnext_atto @ 64 px (laptop stand-in)``
    recipe:      the complete recipe, nested
    metrics:     ``metrics.json`` of the evaluation contract
    history:     one entry per epoch: epoch, updates, train_loss, val_loss, val_accuracy, learning_rate,
                 images_per_second, best (the epoch that was kept)
    predictions: cell_id, truth, predicted, ``p_<label>`` per class
    """

    title: str
    recipe: dict[str, Any]
    metrics: dict[str, Any]
    history: list[dict[str, Any]]
    predictions: pd.DataFrame

    @property
    def name(self) -> str:
        """The title with every reservation its numbers need: another network, validation cells, selection on test."""
        metrics = self.metrics
        name = self.title
        if metrics["network"] not in name:
            name += f" [{metrics['network']}]"
        if not metrics["paper_model"] and "stand-in" not in name and metrics["profile"] == "laptop":
            name += " (laptop stand-in)"
        elif not metrics["paper_model"] and "stand-in" not in name:
            name += " (not the paper's network)"
        if metrics["subset"] == "validation":
            name += ", validation"
        if metrics["selected_on_test"]:
            name += ", selected on the test set"
        return name


@dataclass(frozen=True)
class ReportContent:
    """Everything one report shows.

    dataset:    the data set's manifest: name, digest, count, labels, synthetic, counts, notes, parent,
                mask {mode, source, derived}, bits
    split:      protocol, ratio, seed, digest, counts {train, val, test}, shared_specimens (specimens with cells in both
                train and val, None where unknown), pattern_counts {subset: {pattern: cells}}
    models:     at least one
    cells:      cell_id, official_split, pattern, intensity, specimen_id, width, height; no images
    examples:   pattern -> (original PNG, masked PNG), a few each; may be empty
    provenance: versions, hardware, started, keys, seconds per stage; nested
    """

    run_id: str
    dataset: dict[str, Any]
    split: dict[str, Any]
    models: Sequence[ModelResult]
    cells: pd.DataFrame
    examples: dict[str, list[tuple[bytes, bytes]]]
    provenance: dict[str, Any]

    def __post_init__(self) -> None:
        if not self.models:
            raise ValueError("a report needs at least one model")

    @property
    def ranked(self) -> list[ModelResult]:
        """The models by ACA, best first."""
        return sorted(self.models, key=lambda model: -model.metrics["aca"])

    @property
    def real_icpr2012(self) -> bool:
        """Whether the cells are those the paper used."""
        return self.dataset["name"].startswith("icpr2012") and not self.dataset["synthetic"]

    def on_official_test_set(self, model: ModelResult) -> bool:
        """Whether the model was evaluated on the official test cells, all of them."""
        official = set(self.cells.loc[self.cells["official_split"] == "test", "cell_id"])
        return model.metrics["subset"] == "test" and official == set(model.predictions["cell_id"])

    def comparable_with_paper(self, model: ModelResult) -> bool:
        """Whether the model's accuracy may stand beside the paper's: same test cells, never used to choose anything."""
        return self.real_icpr2012 and self.on_official_test_set(model) and not model.metrics["selected_on_test"]
