"""What a report shows: plain values, which the report stage reads from the store."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, reduce
from operator import getitem
from statistics import mean, stdev
from typing import Any

import pandas as pd

from hep2flow.evaluation.metrics import intervals_over_seeds
from hep2flow.evaluation.paired_tests import DifferentCellsError, mcnemar, paired_difference, permutation_test
from hep2flow.selected_on_test import OPTIMISTIC_WARNING

SIGNIFICANCE_LEVEL = 0.05  # a smaller p, and an interval without 0, are more than noise


@dataclass(frozen=True)
class ModelResult:
    """One trained and evaluated model.

    Attributes:
        title: Name for people, whatever the seed, for example ``convnext_atto @ 64 px (laptop stand-in)``.
        family: The recipe's name without its seed.
        recipe: The complete recipe, nested.
        training: The training's manifest, of it weights {origin, …} (None for a training from scratch), weights_replaced
            (names of the tensors that did not fit and were re-initialised), hardware.
        metrics: ``metrics.json`` of the evaluation.
        history: Per epoch: epoch, updates, train_loss, val_loss, val_accuracy, learning_rate, images_per_second, best
            (the best so far; the last of these is the selected epoch).
        predictions: cell_id, truth, predicted, ``p_<label>`` per class.
        mistakes: See :func:`hep2flow.stages.evaluation_images.mistake_images`; None for evaluations of earlier versions.
        batch: See :func:`hep2flow.stages.evaluation_images.augmented_batch`; None for evaluations of earlier versions.
    """

    title: str
    family: str
    recipe: dict[str, Any]
    training: dict[str, Any]
    metrics: dict[str, Any]
    history: list[dict[str, Any]]
    predictions: pd.DataFrame
    mistakes: pd.DataFrame | None = None
    batch: pd.DataFrame | None = None

    @property
    def name(self) -> str:
        """The title with every reservation its numbers need: another network, validation cells, selection on test."""
        return self._reserved_title("selected on the test set")

    @property
    def full_name(self) -> str:
        """The name where it stands alone, above a figure or a card: the last reservation in full."""
        return self._reserved_title(OPTIMISTIC_WARNING)

    def _reserved_title(self, selected_on_test: str) -> str:
        metrics = self.metrics
        name = self.title
        if metrics["network"] not in name:
            name += f" [{metrics['network']}]"
        if not metrics["paper_model"] and "stand-in" not in name:
            name += " (laptop stand-in)" if metrics["profile"] == "laptop" else " (not the paper's network)"
        if metrics["subset"] == "validation":
            name += ", validation"
        return f"{name}, {selected_on_test}" if metrics["selected_on_test"] else name


@dataclass(frozen=True, eq=False)
class Family:
    """Trainings that differ in the seed only, at least one, in the order of their seeds; and the report's cells."""

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
    def recipe_name(self) -> str:
        """The recipe's name without its seed."""
        return self.models[0].family

    @property
    def recipe(self) -> dict[str, Any]:
        """The recipe that the trainings share, with the seeds of all."""
        recipe = self.models[0].recipe
        return {**recipe, "name": self.recipe_name, "train": {**recipe["train"], "seed": self.seeds}}

    @property
    def representative(self) -> ModelResult:
        """The training shown where only one can be: of median ACA, of two in the middle the lower."""
        if len(self.models) == 1:
            return self.models[0]
        ordered = sorted(self.models, key=lambda model: model.metrics["aca"])
        median = ordered[(len(ordered) - 1) // 2]
        title = f"{median.title}, seed {median.metrics['seed']} (median ACA of {len(ordered)} seeds)"
        return replace(median, title=title)

    def mean(self, *path: str) -> float | None:
        """Mean over seeds of the metric at a path of keys; None where a seed has none."""
        values = self._values(path)
        return None if None in values else mean(values)

    def deviation(self, *path: str) -> float | None:
        """Standard deviation (n - 1) over seeds of the metric at a path of keys; None for one seed."""
        values = self._values(path)
        return None if None in values or len(values) == 1 else stdev(values)

    def _values(self, path: Sequence[str]) -> list[Any]:
        return [reduce(getitem, path, model.metrics) for model in self.models]

    @cached_property
    def scores(self) -> dict[str, Any]:
        """``aca``, ``mca``, ``macro_f1`` (means over seeds), their ``ci95``, and ``ci95_method``."""
        if len(self.models) == 1:
            return self.models[0].metrics
        tables = [model.predictions for model in self.models]
        intervals = intervals_over_seeds(tables, self.cells, self.models[0].metrics["labels"])
        return {**{key: self.mean(key) for key in ("aca", "mca", "macro_f1")}, **intervals}

    def compare_with(self, other: "Family") -> dict[str, Any]:
        """ACA of this family minus the other's on the same cells, and whether it is more than noise.

        Returns:
            The entries of :func:`paired_difference`; ``permutation``, see :func:`permutation_test`; ``mcnemar``, see
            :func:`mcnemar`, of the representatives, with their ``seeds``; ``outside_noise``: p of the permutation test
            below 0.05 and an interval without 0.

        Raises:
            DifferentCellsError: The two were evaluated on different cells.
        """
        ours, theirs = ([model.predictions for model in family.models] for family in (self, other))
        paired = paired_difference(ours, theirs, self.cells)
        permutation = permutation_test(ours, theirs, self.cells)
        shown = self.representative, other.representative
        seeds = [model.metrics["seed"] for model in shown]
        exact = {**mcnemar(shown[0].predictions, shown[1].predictions), "seeds": seeds}
        low, high = paired["ci95"]
        outside = permutation["p"] < SIGNIFICANCE_LEVEL and not low <= 0 <= high
        return {**paired, "permutation": permutation, "mcnemar": exact, "outside_noise": outside}


@dataclass(frozen=True, eq=False)
class SweepResult:
    """One finished sweep of one recipe. Its scores are of the validation cells that chose, in the metric's own unit.

    Attributes:
        title: The recipe's title.
        recipe: The complete recipe that was searched around, nested.
        manifest: trials, finished, stopped, failed (counts), best_trial (number), best (key -> YAML text, the winner's
            changes; {} where the recipe's own values won), val_accuracy and val_loss (of the winner's best epoch),
            chosen_on {cells, by: specimen | cell}, failures {number as text: reason}, metric (accuracy | loss),
            importance (key -> share in [0, 1], sum 1; None for too few trials), early_stopping {epochs_run,
            epochs_saved, seconds_run, seconds_saved} (of all trials; what was saved is estimated).
        trials: trial, status (finished | stopped | failed | running), val_accuracy, val_loss, best_epoch, epochs, updates,
            seconds, reason, then one column per key of the space: numbers, or YAML text, missing where not tried.
        curves: trial, epoch, updates, train_loss, val_loss, val_accuracy, seconds (since the trial's start): one row per
            validated epoch of each trial.
        judgement: The winner ("tuned") against the recipe's own values ("default") on validation cells that chose nothing,
            see :func:`hep2flow.stages.judge.judge_sweep`; None where nothing was judged.
    """

    title: str
    recipe: dict[str, Any]
    manifest: dict[str, Any]
    trials: pd.DataFrame
    curves: pd.DataFrame
    judgement: dict[str, Any] | None

    @property
    def keys(self) -> list[str]:
        """The keys of the space, the most important first where that is known."""
        importance = self.manifest["importance"] or {}
        return sorted(self.recipe["search"]["space"], key=lambda key: -importance.get(key, 0))

    @property
    def by_accuracy(self) -> bool:
        """Whether the highest validation accuracy wins, and not the lowest validation loss."""
        return bool(self.manifest["metric"] == "accuracy")

    @cached_property
    def best_epochs(self) -> pd.DataFrame:
        """The row of ``curves`` at the best epoch of every trial that did not fail, by trial; of equals the lower loss."""
        done = self.trials.loc[self.trials["status"].isin(["finished", "stopped"]), "trial"]
        order, ascending = (["val_accuracy", "val_loss"], [False, True]) if self.by_accuracy else (["val_loss"], [True])
        ranked = self.curves[self.curves["trial"].isin(done)].sort_values(order, ascending=ascending, kind="stable")
        best: pd.DataFrame = ranked.drop_duplicates("trial").set_index("trial").sort_index()
        return best

    @property
    def scores(self) -> pd.Series:
        """Trial -> its best score: accuracy in [0, 1] or loss."""
        return self.best_epochs["val_accuracy" if self.by_accuracy else "val_loss"]


@dataclass(frozen=True)
class ReportContent:
    """Everything one report shows.

    Attributes:
        dataset: The data set's manifest: name, digest, count, labels, synthetic, counts, notes, parent,
            mask {mode, source, derived}, bits.
        split: protocol, ratio, seed, digest, counts {train, val, test}, shared_specimens (specimens with cells in both
            train and val, None where unknown), pattern_counts {subset: {pattern: cells}}.
        models: At least one; several of one family, where one was trained under several seeds.
        cells: cell_id, official_split, pattern, intensity, specimen_id, width, height; no images.
        examples: Pattern -> (original PNG, masked PNG), a few each; may be empty.
        provenance: Versions, hardware, started, keys, seconds per stage; nested.
        sweeps: Of the recipes; may be empty.
        leakage: What cells of different subsets share, see :func:`hep2flow.stages.leakage.find_leakage`; None: not searched.
        originals: cell_id -> (original PNG, its mask as PNG or None) of the models' ``mistakes``.
    """

    run_id: str
    dataset: dict[str, Any]
    split: dict[str, Any]
    models: Sequence[ModelResult]
    cells: pd.DataFrame
    examples: dict[str, list[tuple[bytes, bytes]]]
    provenance: dict[str, Any]
    sweeps: Sequence[SweepResult] = ()
    leakage: dict[str, Any] | None = None
    originals: Mapping[str, tuple[bytes, bytes | None]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.models:
            raise ValueError("a report needs at least one model")

    @property
    def ranked(self) -> list[ModelResult]:
        """The representative of each family, best family first."""
        return [family.representative for family in self.families]

    @cached_property
    def families(self) -> "list[Family]":
        """The models grouped by everything but the seed, by mean ACA, best first."""
        return families_of(self.models, self.cells)

    @cached_property
    def lead(self) -> dict[str, Any] | None:
        """Best family against the next, see :meth:`Family.compare_with`; None without another on the same cells."""
        if len(self.families) == 1:
            return None
        best, other = self.families[:2]
        try:
            return best.compare_with(other)
        except DifferentCellsError:
            return None

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

    def comparable_with_paper(self, model: ModelResult) -> bool:
        """Whether the model's accuracy is comparable with the paper's: all official test cells, which chose nothing."""
        official = set(self.cells.loc[self.cells["official_split"] == "test", "cell_id"])
        on_test_set = model.metrics["subset"] == "test" and official == set(model.predictions["cell_id"])
        return self.real_icpr2012 and on_test_set and not model.metrics["selected_on_test"]


def families_of(models: Sequence[ModelResult], cells: pd.DataFrame) -> list[Family]:
    """The models grouped by everything but the seed, by mean ACA, best first; cells: of all models."""
    found: dict[str, list[ModelResult]] = {}
    for model in sorted(models, key=lambda model: model.metrics["seed"]):
        train = {key: value for key, value in model.recipe["train"].items() if key != "seed"}
        without_seed = {**model.recipe, "name": model.family, "train": train}
        found.setdefault(json.dumps([model.family, without_seed], sort_keys=True), []).append(model)
    families = [Family(members, cells) for members in found.values()]
    return sorted(families, key=lambda family: -family.scores["aca"])
