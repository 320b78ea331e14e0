"""What a report is made of: plain values, read from the store by the report stage, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import mean, stdev
from typing import Any

import pandas as pd

from hep2flow.learning.metrics import intervals_over_seeds
from hep2flow.optimism import OPTIMISTIC


@dataclass(frozen=True)
class ModelResult:
    """One trained and evaluated model.

    title:       what a person calls it, whatever its seed, for example ``convnext_atto @ 64 px (laptop stand-in)``
    family:      the recipe's name without its seed
    recipe:      the complete recipe, nested
    training:    the training's manifest: at least weights {origin, …} or None for a training from scratch,
                 weights_replaced (tensors that did not fit and were made anew), hardware
    metrics:     ``metrics.json`` of the evaluation contract
    history:     one entry per epoch: epoch, updates, train_loss, val_loss, val_accuracy, learning_rate,
                 images_per_second, best (the epoch that was kept)
    predictions: cell_id, truth, predicted, ``p_<label>`` per class
    """

    title: str
    family: str
    recipe: dict[str, Any]
    training: dict[str, Any]
    metrics: dict[str, Any]
    history: list[dict[str, Any]]
    predictions: pd.DataFrame

    @property
    def name(self) -> str:
        """The title with every reservation its numbers need: another network, validation cells, selection on test."""
        return self._reserved("selected on the test set")

    @property
    def full_name(self) -> str:
        """The name where it stands alone, above a figure or a card: the last reservation in full."""
        return self._reserved(OPTIMISTIC)

    def _reserved(self, selected_on_test: str) -> str:
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
            name += f", {selected_on_test}"
        return name


@dataclass(frozen=True, eq=False)
class Family:
    """Trainings that differ in the seed only.

    models: at least one, in the order of their seeds
    cells:  of the report's content
    """

    models: Sequence[ModelResult]
    cells: pd.DataFrame

    @property
    def name(self) -> str:
        """As a model's: the title with every reservation."""
        return self.models[0].name

    @property
    def seeds(self) -> list[int]:
        """The seed of each training."""
        return [model.metrics["seed"] for model in self.models]

    @property
    def file(self) -> str:
        """The recipe's name without its seed."""
        return self.models[0].family

    @property
    def shown(self) -> ModelResult:
        """The training that stands for all where only one can be shown: of median ACA, of two in the middle the lower."""
        if len(self.models) == 1:
            return self.models[0]
        ordered = sorted(self.models, key=lambda model: model.metrics["aca"])
        median = ordered[(len(ordered) - 1) // 2]
        return replace(
            median, title=f"{median.title}, seed {median.metrics['seed']} (median ACA of {len(ordered)} seeds)"
        )

    def mean(self, *path: str) -> float | None:
        """Mean over seeds of the metric at a path of keys; None where a seed has none."""
        values = self._values(path)
        return None if None in values else mean(values)

    def deviation(self, *path: str) -> float | None:
        """Standard deviation (n - 1) over seeds of the metric at a path of keys; None for one seed."""
        values = self._values(path)
        return None if None in values or len(values) == 1 else stdev(values)

    def _values(self, path: Sequence[str]) -> list[Any]:
        values: list[Any] = [model.metrics for model in self.models]
        for key in path:
            values = [value[key] for value in values]
        return values

    @cached_property
    def scores(self) -> dict[str, Any]:
        """``aca``, ``mca``, ``macro_f1`` (means over seeds), their ``ci95``, and ``ci95_method``."""
        if len(self.models) == 1:
            return self.models[0].metrics
        tables = [model.predictions for model in self.models]
        intervals = intervals_over_seeds(tables, self.cells, self.models[0].metrics["labels"])
        return {**{key: self.mean(key) for key in ("aca", "mca", "macro_f1")}, **intervals}


@dataclass(frozen=True)
class ReportContent:
    """Everything one report shows.

    dataset:    the data set's manifest: name, digest, count, labels, synthetic, counts, notes, parent,
                mask {mode, source, derived}, bits
    split:      protocol, ratio, seed, digest, counts {train, val, test}, shared_specimens (specimens with cells in both
                train and val, None where unknown), pattern_counts {subset: {pattern: cells}}
    models:     at least one; several of one family, where one was trained under several seeds
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
        """One model for each family, best family first: the one that is shown of it."""
        return [family.shown for family in self.families]

    @cached_property
    def families(self) -> list[Family]:
        """The models, those together that differ in the seed only, by mean ACA, best first."""
        found: dict[str, list[ModelResult]] = {}
        for model in sorted(self.models, key=lambda model: model.metrics["seed"]):
            found.setdefault(_without_seed(model), []).append(model)
        families = [Family(models, self.cells) for models in found.values()]
        return sorted(families, key=lambda family: -family.scores["aca"])

    @property
    def several_seeds(self) -> bool:
        """Whether a model was trained under several seeds."""
        return len(self.families) < len(self.models)

    @property
    def selected_on_test(self) -> bool:
        """Whether any number here is of a model whose epoch was chosen on the test set."""
        return any(model.metrics["selected_on_test"] for model in self.models)

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


def _without_seed(model: ModelResult) -> str:
    """What models of one family have in common: everything but name and seed of the recipe."""
    train = {key: value for key, value in model.recipe["train"].items() if key != "seed"}
    return json.dumps([model.family, {**model.recipe, "name": model.family, "train": train}], sort_keys=True)
