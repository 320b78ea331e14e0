"""Metrics of a set of predictions: everything of the evaluation contract that follows from predictions alone.

ACA is correct / total, the paper's and the contest's ranking figure. MCA is the mean of the per-class recalls. Both are
often called "average classification accuracy" in the literature, so both are always reported.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

RELIABILITY_BINS = 15
SPECIMEN_BOOTSTRAP = "specimen-clustered bootstrap"
CELL_BOOTSTRAP = "cell bootstrap: specimens unknown"
ONE_SPECIMEN_BOOTSTRAP = "cell bootstrap: only one specimen"
OTHER_CELLS = "the predictions are not all of the same cells"

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


def evaluate_predictions(
    predictions: pd.DataFrame,
    cells: pd.DataFrame,
    labels: list[str],
    *,
    bootstrap: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Every metric of the evaluation contract that follows from predictions; JSON-able, undefined values are None.

    predictions: one row per cell: cell_id, truth, predicted, and ``p_<label>`` per class, probabilities that sum to 1
    cells:       at least the predicted cells: cell_id, intensity, specimen_id (the last two nullable)
    labels:      every class, in the order of the confusion matrix; at least two
    bootstrap:   number of resamples behind ``ci95``
    seed:        of the resamples

    Returns ``n``, ``labels``, ``aca``, ``mca``, ``macro_f1``, ``weighted_f1``, ``per_class``, ``confusion`` (rows are
    the truth), ``roc_auc`` {per_class, macro} (one against the rest), ``ece`` with its ``reliability`` bins, ``nll``
    (nats), ``by_intensity``, ``by_specimen``, ``specimen_vote_accuracy``, ``ci95`` {aca, mca, macro_f1: [low, high]}
    and ``ci95_method``. All metrics but ``nll`` lie in [0, 1]. MCA and macro F1 are means over the classes that have
    cells. The order of the rows changes nothing.

    Raises ValueError where the frames break this contract.
    """
    table = _joined(predictions, cells, labels)
    classes = np.arange(len(labels))
    truth, predicted = _codes(table["truth"], labels), _codes(table["predicted"], labels)
    probabilities = table[[f"p_{label}" for label in labels]].to_numpy(dtype=np.float64)
    probabilities = probabilities / probabilities.sum(axis=1, keepdims=True)

    supported = np.unique(truth)
    # scikit-learn takes a second to import, and the report, which reads this module too, does without.
    from sklearn.metrics import (
        accuracy_score,
        confusion_matrix,
        f1_score,
        log_loss,
        precision_recall_fscore_support,
    )

    precision, recall, f1, support = precision_recall_fscore_support(
        truth, predicted, labels=classes, zero_division=np.nan
    )
    by_specimen = _by_specimen(table, labels)
    intervals, method = _intervals(truth, predicted[None], table["specimen_id"], len(labels), bootstrap, seed)
    point = {
        "aca": float(accuracy_score(truth, predicted)),
        "mca": float(recall[supported].mean()),
        "macro_f1": float(f1_score(truth, predicted, labels=supported, average="macro", zero_division=0)),
    }
    return {
        "n": len(table),
        "labels": list(labels),
        **point,
        "weighted_f1": float(f1_score(truth, predicted, average="weighted", zero_division=0)),
        "per_class": {
            label: {
                "precision": _number(precision[k]),
                "recall": _number(recall[k]),
                "f1": _number(f1[k]),
                "support": int(support[k]),
            }
            for k, label in enumerate(labels)
        },
        "confusion": confusion_matrix(truth, predicted, labels=classes).tolist(),
        "roc_auc": _roc_auc(truth, probabilities, labels),
        **_calibration(probabilities[np.arange(len(table)), predicted], truth == predicted),
        "nll": float(log_loss(truth, probabilities, labels=classes)),
        "by_intensity": _by_intensity(table),
        "by_specimen": by_specimen,
        "specimen_vote_accuracy": (
            None
            if table["specimen_id"].isna().any()
            else float(np.mean([specimen["vote_correct"] for specimen in by_specimen]))
        ),
        # scikit-learn rounds the last digit its own way.
        "ci95": {name: [min(low, point[name]), max(high, point[name])] for name, (low, high) in intervals.items()},
        "ci95_method": method,
    }


def intervals_over_seeds(
    predictions: Sequence[pd.DataFrame],
    cells: pd.DataFrame,
    labels: list[str],
    *,
    bootstrap: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """95 % intervals of the means over several trainings that differ in the seed only.

    predictions: one table for each seed, all of the same cells; columns as in :func:`evaluate_predictions`
    cells, labels, bootstrap, seed: as there

    Returns ``ci95`` {aca, mca, macro_f1: [low, high]} and ``ci95_method``. A resample draws specimens, or cells where
    specimens are unknown, once for all seeds; it never draws seeds.

    Raises ValueError where the frames break this contract.
    """
    tables = [_joined(table, cells, labels) for table in predictions]
    first = tables[0]
    for table in tables[1:]:
        if not table[["cell_id", "truth"]].equals(first[["cell_id", "truth"]]):
            raise ValueError(OTHER_CELLS)
    predicted = np.stack([_codes(table["predicted"], labels) for table in tables])
    intervals, method = _intervals(
        _codes(first["truth"], labels), predicted, first["specimen_id"], len(labels), bootstrap, seed
    )
    return {"ci95": {name: list(bounds) for name, bounds in intervals.items()}, "ci95_method": method}


def paired_difference(
    first: Sequence[pd.DataFrame],
    second: Sequence[pd.DataFrame],
    cells: pd.DataFrame,
    *,
    bootstrap: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """ACA of ``first`` minus ACA of ``second`` on the same cells, with a paired bootstrap interval.

    first, second: predictions with cell_id, truth, predicted, all of the same cells; one table per seed, at least one
    cells:         cell_id, specimen_id (nullable)

    Returns ``difference`` and ``ci95`` [low, high], both in [-1, 1], ``ci95_method``, ``first`` and ``second`` (mean ACA
    over the side's seeds), and for both sides ``seeds`` (how many) and ``seed_sd`` (standard deviation of ACA over them,
    None for one).
    Specimens, or cells where specimens are unknown, are drawn once for all predictions, so that what is hard for all
    cancels out. Seeds are averaged, not drawn: the interval tells of other cells, ``seed_sd`` of other seeds.

    Raises ValueError where they do not hold the same cells.
    """
    both = [pd.DataFrame([_correct(table) for table in side]) for side in (first, second)]
    truths = [table.set_index("cell_id")["truth"].sort_index() for table in (*first, *second)]
    if not all(truth.equals(truths[0]) for truth in truths):
        raise ValueError(OTHER_CELLS)
    gain = both[0].mean() - both[1].mean()
    specimens = cells.set_index("cell_id")["specimen_id"].reindex(gain.index)
    groups, method = _clusters(specimens)
    # Per unit of the bootstrap: cells the first gains, cells in all.
    if groups is None:
        # Kinds by first appearance, not by size: with the sides swapped the same cells are drawn.
        kinds, values = pd.factorize(gain.to_numpy())
        units, counts = np.stack([values, np.ones(len(values))], axis=1), np.bincount(kinds)
    else:
        units = np.stack([np.bincount(groups, weights=gain), np.bincount(groups).astype(float)], axis=1)
        counts = np.ones(len(units), dtype=np.int64)
    drawn = _resample(units, counts, bootstrap, seed)
    difference = float(gain.mean())
    low, high = np.percentile(drawn[:, 0] / drawn[:, 1], [2.5, 97.5])
    each = [side.mean(axis=1) for side in both]
    return {
        "difference": difference,
        "ci95": [min(float(low), difference), max(float(high), difference)],
        "ci95_method": method,
        "first": float(each[0].mean()),
        "second": float(each[1].mean()),
        "seeds": [len(accuracies) for accuracies in each],
        "seed_sd": [float(accuracies.std()) if len(accuracies) > 1 else None for accuracies in each],
    }


def _correct(table: pd.DataFrame) -> pd.Series[float]:
    """1 for each cell predicted right, 0 for the others, by cell_id in order."""
    indexed = table.set_index("cell_id").sort_index()
    right: pd.Series[float] = (indexed["truth"] == indexed["predicted"]).astype(float)
    return right


def _joined(predictions: pd.DataFrame, cells: pd.DataFrame, labels: Sequence[str]) -> pd.DataFrame:
    """Predictions with the intensity and specimen of their cells, sorted by cell_id; ValueError for a broken one."""
    if len(labels) < 2 or len(set(labels)) != len(labels):
        raise ValueError(f"labels must be at least two different names, got {list(labels)}")
    if predictions.empty:
        raise ValueError("there are no predictions to evaluate")
    columns = [f"p_{label}" for label in labels]
    missing = [name for name in ["cell_id", "truth", "predicted", *columns] if name not in predictions.columns]
    if missing:
        raise ValueError(f"predictions lack the columns {missing}")
    for name in ("truth", "predicted"):
        unknown = sorted(set(predictions[name]) - set(labels))
        if unknown:
            raise ValueError(f"predictions hold the {name} {unknown[0]!r}, which is not one of {list(labels)}")
    probabilities = predictions[columns].to_numpy(dtype=np.float64)
    if not ((probabilities >= 0).all() and np.allclose(probabilities.sum(axis=1), 1, atol=1e-3)):
        raise ValueError("the probabilities of every cell must be finite, not negative, and sum to 1")
    table: pd.DataFrame = predictions.merge(
        cells[["cell_id", "intensity", "specimen_id"]], on="cell_id", how="left", validate="one_to_one", indicator=True
    )
    absent = table.loc[table["_merge"] != "both", "cell_id"]
    if len(absent):
        raise ValueError(f"{len(absent)} predicted cells are not in the cell table, for example {absent.iloc[0]!r}")
    ordered: pd.DataFrame = table.sort_values("cell_id", ignore_index=True)
    return ordered


def _codes(names: pd.Series[str], labels: Sequence[str]) -> Integers:
    return pd.Categorical(names, categories=list(labels)).codes.astype(np.int64)


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _roc_auc(truth: Integers, probabilities: Floats, labels: Sequence[str]) -> dict[str, Any]:
    """Area under the ROC curve, one class against the rest; None for a class that holds no cell or every cell."""
    from sklearn.metrics import roc_auc_score

    per_class: dict[str, float | None] = {}
    for k, label in enumerate(labels):
        positive = truth == k
        defined = positive.any() and not positive.all()
        per_class[label] = float(roc_auc_score(positive, probabilities[:, k])) if defined else None
    areas = [area for area in per_class.values() if area is not None]
    return {"per_class": per_class, "macro": float(np.mean(areas)) if areas else None}


def _calibration(confidence: Floats, correct: npt.NDArray[np.bool_]) -> dict[str, Any]:
    """Expected calibration error over equal-width bins of the predicted class's probability (Guo et al. 2017)."""
    bins = np.minimum((confidence * RELIABILITY_BINS).astype(int), RELIABILITY_BINS - 1)
    reliability = []
    error = 0.0
    for index in range(RELIABILITY_BINS):
        inside = bins == index
        n = int(inside.sum())
        entry: dict[str, Any] = {
            "low": index / RELIABILITY_BINS,
            "high": (index + 1) / RELIABILITY_BINS,
            "n": n,
            "confidence": float(confidence[inside].mean()) if n else None,
            "accuracy": float(correct[inside].mean()) if n else None,
        }
        if n:
            error += n / len(confidence) * abs(entry["accuracy"] - entry["confidence"])
        reliability.append(entry)
    return {"ece": min(float(error), 1.0), "reliability": reliability}


def _by_intensity(table: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """ACA and MCA per fluorescence intensity; cells without one are in no group."""
    result = {}
    correct = (table["truth"] == table["predicted"]).astype(float)
    for level, group in correct.groupby(table["intensity"]):
        recalls = group.groupby(table.loc[group.index, "truth"]).mean()
        result[str(level)] = {"n": len(group), "aca": float(group.mean()), "mca": float(recalls.mean())}
    return result


def _by_specimen(table: pd.DataFrame, labels: Sequence[str]) -> list[dict[str, Any]]:
    """Accuracy and majority vote per specimen, in order of their numbers; a tied vote goes to the likelier class."""
    result = []
    for specimen, group in table.groupby("specimen_id"):
        votes = group["predicted"].value_counts()
        vote = max(votes.index, key=lambda label: (votes[label], group[f"p_{label}"].sum(), -labels.index(label)))
        counts = group["truth"].value_counts()
        pattern = max(counts.index, key=lambda label: (counts[label], -labels.index(label)))
        intensities = sorted(group["intensity"].dropna().unique())
        correct = int((group["truth"] == group["predicted"]).sum())
        result.append(
            {
                "specimen_id": str(specimen),
                "pattern": str(pattern),
                "intensity": str(intensities[0]) if len(intensities) == 1 else None,
                "n": len(group),
                "correct": correct,
                "accuracy": correct / len(group),
                "vote": str(vote),
                "vote_correct": bool(vote == pattern),
            }
        )
    return sorted(result, key=lambda entry: (len(entry["specimen_id"]), entry["specimen_id"]))


def _clusters(specimens: pd.Series[str]) -> tuple[Integers | None, str]:
    """Specimen number of every cell, None where cells have to be drawn one by one, and the method's name."""
    if specimens.isna().any():
        return None, CELL_BOOTSTRAP
    groups = pd.factorize(specimens, sort=True)[0].astype(np.int64)
    # Drawing the only specimen again and again would claim an interval of width zero.
    return (groups, SPECIMEN_BOOTSTRAP) if groups.max() > 0 else (None, ONE_SPECIMEN_BOOTSTRAP)


def _resample(units: Floats, counts: Integers, bootstrap: int, seed: int) -> Floats:
    """Sums over units drawn with replacement: (bootstrap, statistics).

    units:  (distinct units, statistics)
    counts: how many units are of each kind; as many as there are in all are drawn
    """
    total = int(counts.sum())
    drawn = np.random.default_rng(seed).multinomial(total, counts / total, size=bootstrap)
    return np.asarray(drawn.astype(np.float64) @ units)


def _intervals(
    truth: Integers, predicted: Integers, specimens: pd.Series[str], classes: int, bootstrap: int, seed: int
) -> tuple[dict[str, tuple[float, float]], str]:
    """95 % percentile intervals of ACA, MCA and macro F1, each the mean over seeds, and the method's name.

    truth:     class of every cell, (cells,)
    predicted: (seeds, cells)

    ACA, MCA and F1 follow from the confusion matrix alone, so a resample is a sum of the specimens' confusion matrices.
    A class whose specimens were not drawn is left out of that resample's means. A skewed bootstrap distribution may
    leave the point estimate outside its percentiles: the interval is widened to hold it.
    """
    groups, method = _clusters(specimens)
    entries = (truth * classes + predicted).T
    if groups is None:
        entries, counts = np.unique(entries, axis=0, return_counts=True)
        groups = np.arange(len(entries))
    else:
        counts = np.ones(int(groups.max()) + 1, dtype=np.int64)
    seeds = len(predicted)
    confusions = np.zeros((len(counts), seeds, classes**2))
    np.add.at(confusions, (groups[:, None], np.arange(seeds), entries), 1)
    units = confusions.reshape(len(counts), -1)
    drawn = _resample(units, counts, bootstrap, seed)
    whole = counts.astype(np.float64) @ units
    samples, points = (_scores(sums.reshape(-1, seeds, classes, classes)) for sums in (drawn, whole))
    intervals = {}
    for name, values in samples.items():
        low, high = np.percentile(values, [2.5, 97.5])
        point = points[name].item()
        intervals[name] = (min(float(low), point), max(float(high), point))
    return intervals, method


def _scores(confusions: Floats) -> dict[str, Floats]:
    """ACA, MCA and macro F1, each the mean over seeds: (n, seeds, classes, classes) -> (n,)."""
    hits = np.diagonal(confusions, axis1=2, axis2=3)
    support, called = confusions.sum(axis=3), confusions.sum(axis=2)
    present = np.where(support > 0, 1.0, np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        recalls = hits / support * present
        f1 = 2 * hits / (support + called) * present
    return {
        "aca": (hits.sum(axis=2) / support.sum(axis=2)).mean(axis=1),
        "mca": np.nanmean(recalls, axis=2).mean(axis=1),
        "macro_f1": np.nanmean(f1, axis=2).mean(axis=1),
    }
