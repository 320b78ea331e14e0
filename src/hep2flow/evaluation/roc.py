"""The receiver operating characteristic of an evaluation, small enough to be shown beside it."""

from __future__ import annotations

import numpy as np
import pandas as pd
from sklearn.metrics import roc_curve

POINTS = 100


def micro_average_roc(predictions: pd.DataFrame, labels: list[str]) -> dict[str, list[float]]:
    """``fpr`` and ``tpr`` of "is this cell of that class?", asked of all cells and classes at once, at each ``threshold``.

    predictions: truth, and ``p_<label>`` per class
    labels:      every class

    Names are those of Kubeflow's own artifact: false and true positive rate, 0 to 1, and the probability asked for.
    At most POINTS points of scikit-learn's curve, evenly spaced along it, from (0, 0) to (1, 1). The first threshold, which
    nothing reaches, is 2 and not infinite: JSON has no infinity.
    """
    asked = predictions["truth"].to_numpy()[:, None] == np.array(labels)
    answered = predictions[[f"p_{label}" for label in labels]].to_numpy()
    curve = roc_curve(asked.ravel(), answered.ravel())
    kept = np.unique(np.linspace(0, len(curve[0]) - 1, POINTS).round().astype(int))
    return {
        name: np.minimum(values[kept], 2.0).tolist()
        for name, values in zip(("fpr", "tpr", "threshold"), curve, strict=True)
    }
