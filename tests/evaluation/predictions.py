"""Predictions of a few cells, and the cells, for the tests of metrics."""

from __future__ import annotations

import pandas as pd

LABELS = ["a", "b", "c"]


def frames(
    truth: list[str],
    predicted: list[str],
    specimens: list[str | None] | None = None,
    confidence: float = 0.8,
    labels: list[str] = LABELS,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Predictions that give ``confidence`` to the predicted class and share out the rest."""
    ids = [f"cell-{i:05d}" for i in range(len(truth))]
    rest = (1 - confidence) / (len(labels) - 1)
    probabilities = {f"p_{label}": [confidence if p == label else rest for p in predicted] for label in labels}
    predictions = pd.DataFrame({"cell_id": ids, "truth": truth, "predicted": predicted, **probabilities})
    cells = pd.DataFrame(
        {
            "cell_id": ids,
            "intensity": ["positive" if i % 2 else "intermediate" for i in range(len(truth))],
            "specimen_id": specimens if specimens is not None else [None] * len(truth),
        }
    )
    return predictions, cells
