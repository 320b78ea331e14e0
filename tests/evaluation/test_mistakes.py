"""Which mistakes are shown, and in which order."""

from __future__ import annotations

import pandas as pd

from hep2flow.evaluation.error_analysis import most_confident_mistakes


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
