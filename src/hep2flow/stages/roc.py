"""The receiver operating characteristic of an evaluation, small enough to be shown beside it."""

from __future__ import annotations

import numpy as np
import pandas as pd

POINTS = 100


def micro_average_roc(predictions: pd.DataFrame, labels: list[str]) -> tuple[list[float], list[float], list[float]]:
    """False and true positive rates and thresholds of "is this cell of that class?", asked of all cells and classes at once.

    predictions: truth, and ``p_<label>`` per class
    labels:      every class

    At most POINTS points of scikit-learn's curve, evenly spaced along it, from (0, 0) to (1, 1). The first threshold, which
    nothing reaches, is 2 and not infinite: JSON has no infinity.
    """
    from sklearn.metrics import roc_curve

    asked = predictions["truth"].to_numpy()[:, None] == np.array(labels)
    answered = predictions[[f"p_{label}" for label in labels]].to_numpy()
    curve = roc_curve(asked.ravel(), answered.ravel())
    kept = np.unique(np.linspace(0, len(curve[0]) - 1, POINTS).round().astype(int))
    false, true, thresholds = (np.minimum(values[kept], 2.0).tolist() for values in curve)
    return false, true, thresholds
