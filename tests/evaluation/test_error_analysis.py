"""Where a model errs: its most confident mistakes, and its accuracy over coverage."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hep2flow.evaluation.metrics import COVERAGES, most_confident_mistakes, reject_curve


def test_the_surest_mistakes_come_first_and_equals_by_id() -> None:
    rows = [("c", "a", 0.9), ("b", "b", 0.7), ("a", "a", 0.7), ("d", "a", 0.2)]  # id, truth, probability of b
    table = pd.DataFrame(
        {
            "cell_id": [cell for cell, _, _ in rows],
            "truth": [truth for _, truth, _ in rows],
            "predicted": ["b" if p > 0.5 else "a" for _, _, p in rows],
            "p_a": [1 - p for _, _, p in rows],
            "p_b": [p for _, _, p in rows],
        }
    )
    found = most_confident_mistakes(table, ["a", "b"])
    assert found["cell_id"].tolist() == ["c", "a"]
    assert found["confidence"].tolist() == [0.9, 0.7]
    assert found.index.tolist() == [0, 2]
    many = pd.concat([table.iloc[[0]].assign(cell_id=f"x{index:02d}") for index in range(20)], ignore_index=True)
    assert most_confident_mistakes(many, ["a", "b"])["cell_id"].tolist() == [f"x{index:02d}" for index in range(12)]
    assert most_confident_mistakes(table.iloc[3:], ["a", "b"]).empty


def curve(confidence: list[float], correct: list[bool]) -> dict[str, object]:
    return reject_curve(np.array(confidence), np.array(correct))


def test_a_reject_curve_by_hand() -> None:
    found = curve([0.6, 0.9, 0.7, 0.8], [False, True, True, False])
    # Surest first: right, wrong, right, wrong.
    assert found["reject_curve"] == [
        {"coverage": 1 / 4, "accuracy": 1.0, "threshold": 0.9},
        {"coverage": 2 / 4, "accuracy": 1 / 2, "threshold": 0.8},
        {"coverage": 3 / 4, "accuracy": 2 / 3, "threshold": 0.7},
        {"coverage": 1.0, "accuracy": 1 / 2, "threshold": 0.6},
    ]
    assert found["reject_area"] == pytest.approx((1 + 1 / 2 + 2 / 3 + 1 / 2) / 4)


def test_cells_of_equal_confidence_are_accepted_together() -> None:
    # Two at 0.9, of which one is right; whoever comes first of them is a toss.
    found = curve([0.9, 0.5, 0.9], [True, True, False])
    assert found["reject_curve"] == [
        {"coverage": 2 / 3, "accuracy": 1 / 2, "threshold": 0.9},
        {"coverage": 1.0, "accuracy": 2 / 3, "threshold": 0.5},
    ]
    assert found["reject_area"] == pytest.approx((1 / 2 + 1 / 2 + 2 / 3) / 3)


def test_a_model_that_is_always_equally_sure_has_one_point() -> None:
    found = curve([0.7] * 100, [True] * 80 + [False] * 20)
    assert found == {
        "reject_curve": [{"coverage": 1.0, "accuracy": 0.8, "threshold": 0.7}],
        "reject_area": pytest.approx(0.8),
    }


def test_many_cells_come_to_a_fixed_grid() -> None:
    # The surest three quarters are right.
    confidence = np.linspace(1, 0.2, 1000)
    found = reject_curve(confidence, confidence > 0.4)
    assert [point["coverage"] for point in found["reject_curve"]] == [k / COVERAGES for k in range(1, COVERAGES + 1)]
    assert [point["accuracy"] for point in found["reject_curve"]] == pytest.approx(
        [min(1, 0.75 / (k / COVERAGES)) for k in range(1, COVERAGES + 1)]
    )


answers = st.lists(st.tuples(st.sampled_from([0.3, 0.5, 0.8, 1.0]), st.booleans()), min_size=1, max_size=6)


@given(answers)
def test_the_area_is_the_mean_over_every_order_of_cells_of_equal_confidence(cells: list[tuple[float, bool]]) -> None:
    areas = []
    for order in permutations(cells):
        if sorted(order, key=lambda cell: -cell[0]) == list(order):
            hits = np.cumsum([correct for _, correct in order])
            areas.append(np.mean(hits / np.arange(1, len(cells) + 1)))
    found = curve([confidence for confidence, _ in cells], [correct for _, correct in cells])
    assert found["reject_area"] == pytest.approx(np.mean(areas))


@given(answers.map(lambda cells: cells * 9))
def test_every_threshold_accepts_what_its_point_says(cells: list[tuple[float, bool]]) -> None:
    confidence, correct = (np.array(column) for column in zip(*cells, strict=True))
    found = reject_curve(confidence, correct)
    points = found["reject_curve"]
    assert 1 <= len(points) <= COVERAGES
    for point in points:
        accepted = confidence >= point["threshold"]
        assert point["coverage"] == pytest.approx(accepted.mean())
        assert point["accuracy"] == pytest.approx(correct[accepted].mean())
    coverages = [point["coverage"] for point in points]
    assert coverages == sorted(set(coverages))
    assert points[-1] == {"coverage": 1.0, "accuracy": correct.mean(), "threshold": confidence.min()}
    assert 0 <= found["reject_area"] <= 1
