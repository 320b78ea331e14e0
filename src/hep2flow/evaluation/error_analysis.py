"""Where a model errs: its most confident mistakes, and its accuracy when it may abstain."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from hep2flow.evaluation.bootstrap import Floats

MISTAKES = 12


def most_confident_mistakes(predictions: pd.DataFrame, labels: list[str]) -> pd.DataFrame:
    """Misclassified cells with their ``confidence``, the greatest first, equals by cell_id; at most twelve.

    predictions: cell_id, truth, predicted, ``p_<label>`` per class; its index stays
    confidence:  probability of the predicted pattern, [0, 1]
    """
    wrong = predictions[predictions["truth"] != predictions["predicted"]]
    confidence = wrong[[f"p_{label}" for label in labels]].max(axis=1)
    table = wrong[["cell_id", "truth", "predicted"]].assign(confidence=confidence)
    surest: pd.DataFrame = table.sort_values(["confidence", "cell_id"], ascending=[False, True]).head(MISTAKES)
    return surest


COVERAGES = 20


def reject_curve(confidence: Floats, correct: npt.NDArray[np.bool_]) -> dict[str, Any]:
    """Accuracy over coverage, the surest cells first (Chow 1970; Geifman and El-Yaniv 2017).

    confidence: probability of the predicted class, (cells,), in [0, 1]
    correct:    whether it is the true one, (cells,)

    Returns ``reject_curve``, a list of ``coverage`` (share of cells accepted), ``accuracy`` (of these) and ``threshold``
    (a cell is accepted when its confidence is at least that), at the smallest coverages that reach 5, 10 … 100 %; and
    ``reject_area``: mean accuracy of the k surest cells over every k, all in [0, 1]; 1 - ``reject_area`` is their
    AURC. No threshold parts cells of equal confidence: they are accepted together or not at all, so that the curve may
    have fewer points, and within them the area takes the accuracy expected of any order.
    """
    n = len(confidence)
    thresholds, groups, sizes = np.unique(-confidence, return_inverse=True, return_counts=True)
    accepted, hits = np.cumsum(sizes), np.cumsum(np.bincount(groups, weights=correct))
    targets = -(-n * np.arange(1, COVERAGES + 1) // COVERAGES)
    chosen = np.unique(np.searchsorted(accepted, targets))
    cells = np.arange(1, n + 1)
    expected = np.interp(cells, np.append(0, accepted), np.append(0.0, hits))
    return {
        "reject_curve": [
            {
                "coverage": float(accepted[k] / n),
                "accuracy": float(hits[k] / accepted[k]),
                "threshold": float(-thresholds[k]),
            }
            for k in chosen
        ],
        "reject_area": min(float(np.mean(expected / cells)), 1.0),
    }
