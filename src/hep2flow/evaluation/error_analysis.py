"""Where a model errs: its most confident mistakes, and its accuracy when it may abstain."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from hep2flow.evaluation.bootstrap import Floats

MISTAKES = 12
COVERAGES = 20


def most_confident_mistakes(predictions: pd.DataFrame, labels: list[str]) -> pd.DataFrame:
    """The misclassified cells of highest confidence, at most twelve, ties in the order of cell_id.

    Args:
        predictions: cell_id, truth, predicted, and ``p_<label>`` per class.
        labels: Every class.

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
