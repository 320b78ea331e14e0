"""The ROC curve that Kubeflow draws: scikit-learn's, of few points, all of them numbers that JSON knows."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import auc, roc_auc_score

from hep2flow.evaluation.metrics import ROC_POINTS, micro_average_roc

LABELS = ["golgi", "numem", "speckled"]


def predicted(probabilities: list[list[float]], truth: list[str]) -> pd.DataFrame:
    table = pd.DataFrame(probabilities, columns=[f"p_{label}" for label in LABELS])
    return table.assign(truth=truth)


def test_by_hand() -> None:
    # Scores of the true class 0.8 and 0.4, of the others 0.1, 0.1, 0.5, 0.1.
    false, true, thresholds = micro_average_roc(
        predicted([[0.8, 0.1, 0.1], [0.5, 0.4, 0.1]], ["golgi", "numem"]), LABELS
    ).values()
    assert thresholds == [2.0, 0.8, 0.5, 0.4, 0.1]
    assert true == [0.0, 0.5, 0.5, 1.0, 1.0]
    assert false == [0.0, 0.0, 0.25, 0.25, 1.0]


def test_few_points_keep_the_area_and_both_ends() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 2000)
    logits = rng.normal(size=(2000, 3))
    logits[np.arange(2000), truth] += 1.0
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    table = predicted(probabilities.tolist(), [LABELS[k] for k in truth])
    false, true, thresholds = micro_average_roc(table, LABELS).values()
    assert len(false) == len(true) == len(thresholds) == ROC_POINTS
    assert (false[0], true[0], false[-1], true[-1]) == (0, 0, 1, 1)
    expected = roc_auc_score(np.eye(3)[truth].ravel(), probabilities.ravel())
    assert auc(false, true) == pytest.approx(expected, abs=1e-3)


def test_kubeflow_takes_the_curve_beside_the_matrix() -> None:
    from kfp.dsl import ClassificationMetrics

    table = predicted([[0.8, 0.1, 0.1], [0.5, 0.4, 0.1]], ["golgi", "numem"])
    artifact = ClassificationMetrics()
    artifact.log_confusion_matrix(LABELS, [[1, 0, 0], [1, 0, 0], [0, 0, 0]])
    artifact.log_roc_curve(**micro_average_roc(table, LABELS))
    told = json.loads(json.dumps(artifact.metadata, allow_nan=False))
    assert len(told["confidenceMetrics"]) == 5
    assert all(isinstance(value, float) for point in told["confidenceMetrics"] for value in point.values())
    assert "confusionMatrix" in told
