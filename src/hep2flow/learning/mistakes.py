"""The mistakes a model is surest of: where its labels, or the model, are worth a second look."""

from __future__ import annotations

import pandas as pd

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
