"""The receiver operating characteristic of an evaluation, small enough to be stored beside it."""

from __future__ import annotations

import numpy as np
import pandas as pd
from sklearn.metrics import roc_curve

POINTS = 100


def micro_average_roc(predictions: pd.DataFrame, labels: list[str]) -> dict[str, list[float]]:
    """The micro-averaged one-against-the-rest ROC curve, in the form of Kubeflow's ClassificationMetrics.

    Args:
        predictions: truth, and ``p_<label>`` per class.
        labels: Every class.

    Returns:
        ``fpr``, ``tpr`` (rates, 0 to 1, from (0, 0) to (1, 1)) and ``threshold`` (probability), at most POINTS points
        evenly spaced along scikit-learn's curve. Its first threshold, which no cell reaches, is 2 and not infinite:
        JSON has no infinity.
    """
    positive = predictions["truth"].to_numpy()[:, None] == np.array(labels)
    scores = predictions[[f"p_{label}" for label in labels]].to_numpy()
    curve = roc_curve(positive.ravel(), scores.ravel())
    chosen = np.unique(np.linspace(0, len(curve[0]) - 1, POINTS).round().astype(int))
    return {
        name: np.minimum(values[chosen], 2.0).tolist()
        for name, values in zip(("fpr", "tpr", "threshold"), curve, strict=True)
    }
