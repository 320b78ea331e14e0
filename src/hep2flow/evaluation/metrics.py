"""Metrics of a set of predictions: everything of the evaluation contract that follows from predictions alone.

ACA is correct / total, the paper's and the contest's ranking figure. MCA is the mean of the per-class recalls. Both are
often called "average classification accuracy" in the literature, so both are always reported.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from hep2flow.evaluation.bootstrap import RESAMPLES, SPECIMEN_BOOTSTRAP, Floats, Integers, score_intervals
from hep2flow.evaluation.paired_tests import DifferentCellsError

RELIABILITY_BINS = 15
ROC_POINTS = 100
MISTAKES = 12
COVERAGES = 20


def evaluate_predictions(
    predictions: pd.DataFrame, cells: pd.DataFrame, labels: list[str], *, bootstrap: int = RESAMPLES, seed: int = 0
) -> dict[str, Any]:
    """Every metric of the evaluation contract that follows from predictions.

    All metrics but ``nll`` lie in [0, 1]. MCA and macro F1 are means over the classes that have cells. The order of the
    rows has no effect.

    Args:
        predictions: One row per cell: cell_id, truth, predicted, and ``p_<label>`` per class, which sum to 1.
        cells: At least the predicted cells: cell_id, intensity, specimen_id (the last two nullable).
        labels: Every class, in the order of the confusion matrix; at least two.
        bootstrap: Number of resamples behind ``ci95``.
        seed: Seed of the resamples.

    Returns:
        JSON-able metrics, None where undefined: ``n``, ``labels``, ``aca``, ``mca``, ``macro_f1``, ``weighted_f1``,
        ``per_class``, ``confusion`` (rows are the truth), ``roc_auc`` {per_class, macro} (one against the rest),
        ``ece`` with its ``reliability`` bins, ``nll`` (nats), ``by_intensity``, ``by_specimen``,
        ``specimen_vote_accuracy``, ``reject_curve`` and ``reject_area`` (see
        :func:`reject_curve`), ``ci95`` {aca, mca, macro_f1: [low, high]},
        ``ci95_method`` and ``ci95_one_specimen``: the classes whose cells are all of one specimen, where specimens were
        drawn; how another specimen of such a class varies is not in the intervals of MCA and macro F1.

    Raises:
        ValueError: The frames break this contract.
    """
    table = _join_cells(predictions, cells, labels)
    truth, predicted = _codes(table["truth"], labels), _codes(table["predicted"], labels)
    probabilities = table[[f"p_{label}" for label in labels]].to_numpy(dtype=np.float64)
    probabilities = probabilities / probabilities.sum(axis=1, keepdims=True)
    confidence, correct = probabilities[np.arange(len(table)), predicted], truth == predicted

    scores = _scores(truth, predicted, probabilities, labels)
    by_specimen = _by_specimen(table, labels)
    votes = [specimen["vote_correct"] for specimen in by_specimen]
    intervals, method = score_intervals(truth, predicted[None], table["specimen_id"], len(labels), bootstrap, seed)
    # The bootstrap's point estimates and scikit-learn's may differ in the last digit.
    bounds = {name: [min(low, scores[name]), max(high, scores[name])] for name, (low, high) in intervals.items()}
    specimens = table.groupby("truth")["specimen_id"].nunique()
    alone = [label for label in labels if specimens.get(label) == 1] if method == SPECIMEN_BOOTSTRAP else []
    return {
        "n": len(table),
        "labels": list(labels),
        **scores,
        **_calibration(confidence, correct),
        "by_intensity": _by_intensity(table),
        "by_specimen": by_specimen,
        "specimen_vote_accuracy": None if table["specimen_id"].isna().any() else float(np.mean(votes)),
        **reject_curve(confidence, correct),
        "ci95": bounds,
        "ci95_method": method,
        "ci95_one_specimen": alone,
    }


def intervals_over_seeds(predictions: Sequence[pd.DataFrame], cells: pd.DataFrame, labels: list[str]) -> dict[str, Any]:
    """95 % intervals of the means over several trainings that differ in the seed only.

    A resample draws specimens, or cells where specimens are unknown, once for all seeds; it never draws seeds.
    ``predictions`` has one table for each seed, all of the same cells; columns and the other arguments are as in
    :func:`evaluate_predictions`.

    Returns:
        ``ci95`` {aca, mca, macro_f1: [low, high]} and ``ci95_method``.

    Raises:
        ValueError: The frames break this contract.
    """
    tables = [_join_cells(table, cells, labels) for table in predictions]
    first = tables[0]
    if not all(table[["cell_id", "truth"]].equals(first[["cell_id", "truth"]]) for table in tables):
        raise DifferentCellsError
    truth, predicted = _codes(first["truth"], labels), np.stack([_codes(each["predicted"], labels) for each in tables])
    intervals, method = score_intervals(truth, predicted, first["specimen_id"], len(labels), RESAMPLES, seed=0)
    return {"ci95": {name: list(bounds) for name, bounds in intervals.items()}, "ci95_method": method}


def _join_cells(predictions: pd.DataFrame, cells: pd.DataFrame, labels: Sequence[str]) -> pd.DataFrame:
    """Predictions with the intensity and specimen of their cells, sorted by cell_id."""
    if len(labels) < 2 or len(set(labels)) != len(labels):
        raise ValueError(f"labels must be at least two different names, got {list(labels)}")
    if predictions.empty:
        raise ValueError("there are no predictions to evaluate")
    columns = [f"p_{label}" for label in labels]
    if missing := [name for name in ["cell_id", "truth", "predicted", *columns] if name not in predictions.columns]:
        raise ValueError(f"predictions lack the columns {missing}")
    for name in ("truth", "predicted"):
        if unknown := sorted(set(predictions[name]) - set(labels)):
            raise ValueError(f"predictions hold the {name} {unknown[0]!r}, which is not one of {list(labels)}")
    probabilities = predictions[columns].to_numpy(dtype=np.float64)
    if not ((probabilities >= 0).all() and np.allclose(probabilities.sum(axis=1), 1, atol=1e-3)):
        raise ValueError("the probabilities of every cell must be finite, not negative, and sum to 1")
    facts = cells[["cell_id", "intensity", "specimen_id"]]
    table: pd.DataFrame = predictions.merge(facts, on="cell_id", how="left", validate="one_to_one", indicator=True)
    absent = table.loc[table["_merge"] != "both", "cell_id"]
    if len(absent):
        raise ValueError(f"{len(absent)} predicted cells are not in the cell table, for example {absent.iloc[0]!r}")
    ordered: pd.DataFrame = table.sort_values("cell_id", ignore_index=True)
    return ordered


def _codes(names: "pd.Series[str]", labels: Sequence[str]) -> Integers:
    return pd.Categorical(names, categories=list(labels)).codes.astype(np.int64)


def _scores(truth: Integers, predicted: Integers, probabilities: Floats, labels: Sequence[str]) -> dict[str, Any]:
    """The scores of classes and their means; the order of classes is that of ``labels``."""
    # scikit-learn takes a second to import, and the report, which reads this module too, does without.
    from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, log_loss, precision_recall_fscore_support

    classes, supported = np.arange(len(labels)), np.unique(truth)
    scores = precision_recall_fscore_support(truth, predicted, labels=classes, zero_division=np.nan)
    precision, recall, f1, support = scores
    of_classes = {"precision": precision, "recall": recall, "f1": f1}
    return {
        "aca": float(accuracy_score(truth, predicted)),
        "mca": float(recall[supported].mean()),
        "macro_f1": float(f1[supported].mean()),
        "weighted_f1": float(f1_score(truth, predicted, average="weighted", zero_division=0)),
        "per_class": {
            label: {
                **{name: _none_if_nan(values[k]) for name, values in of_classes.items()},
                "support": int(support[k]),
            }
            for k, label in enumerate(labels)
        },
        "confusion": confusion_matrix(truth, predicted, labels=classes).tolist(),
        "roc_auc": _roc_auc(truth, probabilities, labels),
        "nll": float(log_loss(truth, probabilities, labels=classes)),
    }


def _none_if_nan(value: float) -> float | None:
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
    reliability, error = [], 0.0
    for index in range(RELIABILITY_BINS):
        members = bins == index
        entry: dict[str, Any] = {"low": index / RELIABILITY_BINS, "high": (index + 1) / RELIABILITY_BINS}
        entry |= {"n": int(members.sum()), "confidence": None, "accuracy": None}
        if entry["n"]:
            entry |= {"confidence": float(confidence[members].mean()), "accuracy": float(correct[members].mean())}
            error += entry["n"] / len(confidence) * abs(entry["accuracy"] - entry["confidence"])
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
        facts = {
            "specimen_id": str(specimen),
            "pattern": str(pattern),
            "intensity": str(intensities[0]) if len(intensities) == 1 else None,
            "n": len(group),
            "correct": correct,
            "accuracy": correct / len(group),
            "vote": str(vote),
            "vote_correct": bool(vote == pattern),
        }
        result.append(facts)
    return sorted(result, key=lambda entry: (len(entry["specimen_id"]), entry["specimen_id"]))


def most_confident_mistakes(predictions: pd.DataFrame, labels: list[str]) -> pd.DataFrame:
    """The misclassified cells of highest confidence, at most twelve, ties in the order of cell_id.

    Args:
        predictions: As :func:`evaluate_predictions` takes it.
        labels: The classes, in the order of the network's outputs.

    Returns:
        cell_id, truth, predicted and ``confidence`` (probability of the predicted class, [0, 1]), with the index of
        ``predictions``.
    """
    wrong = predictions[predictions["truth"] != predictions["predicted"]]
    confidence = wrong[[f"p_{label}" for label in labels]].max(axis=1)
    table = wrong[["cell_id", "truth", "predicted"]].assign(confidence=confidence)
    worst: pd.DataFrame = table.sort_values(["confidence", "cell_id"], ascending=[False, True]).head(MISTAKES)
    return worst


def reject_curve(confidence: Floats, correct: npt.NDArray[np.bool_]) -> dict[str, Any]:
    """Accuracy over coverage, the most confident cells first (Chow 1970; Geifman and El-Yaniv 2017).

    No threshold separates cells of equal confidence: they are accepted together or not at all, so that the curve may
    have fewer points, and within them the area takes the accuracy expected of a random order.

    Args:
        confidence: Probability of the predicted class, (cells,), in [0, 1].
        correct: Whether it is the true one, (cells,).

    Returns:
        ``reject_curve``, a list of ``coverage`` (share of cells accepted), ``accuracy`` (of these) and ``threshold`` (a
        cell is accepted when its confidence is at least that), at the smallest coverages that reach 5, 10 … 100 %; and
        ``reject_area``, the mean accuracy of the k most confident cells over every k, which is 1 - AURC. All in [0, 1].
    """
    n = len(confidence)
    thresholds, groups, sizes = np.unique(-confidence, return_inverse=True, return_counts=True)
    accepted, hits = np.cumsum(sizes), np.cumsum(np.bincount(groups, weights=correct))
    targets = -(-n * np.arange(1, COVERAGES + 1) // COVERAGES)  # rounded up: the least number of cells of each coverage
    chosen = np.unique(np.searchsorted(accepted, targets))
    cells = np.arange(1, n + 1)
    expected = np.interp(cells, np.append(0, accepted), np.append(0.0, hits))
    columns = {"coverage": accepted / n, "accuracy": hits / accepted, "threshold": -thresholds}
    curve = [{name: float(values[k]) for name, values in columns.items()} for k in chosen]
    return {"reject_curve": curve, "reject_area": min(float(np.mean(expected / cells)), 1.0)}


def micro_average_roc(predictions: pd.DataFrame, labels: list[str]) -> dict[str, list[float]]:
    """The micro-averaged one-against-the-rest ROC curve, in the form of Kubeflow's ClassificationMetrics.

    Args:
        predictions: One row a cell: truth, and ``p_<label>`` (probability, [0, 1]) of each class.
        labels: The classes.

    Returns:
        ``fpr``, ``tpr`` (rates, 0 to 1, from (0, 0) to (1, 1)) and ``threshold`` (probability), at most ROC_POINTS points
        evenly spaced along scikit-learn's curve. Its first threshold, which no cell reaches, is 2 and not infinite:
        JSON has no infinity.
    """
    from sklearn.metrics import roc_curve

    positive = predictions["truth"].to_numpy()[:, None] == np.array(labels)
    scores = predictions[[f"p_{label}" for label in labels]].to_numpy()
    curve = roc_curve(positive.ravel(), scores.ravel())
    chosen = np.unique(np.linspace(0, len(curve[0]) - 1, ROC_POINTS).round().astype(int))
    named = zip(("fpr", "tpr", "threshold"), curve, strict=True)
    return {name: np.minimum(values[chosen], 2.0).tolist() for name, values in named}
