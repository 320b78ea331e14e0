from __future__ import annotations

import json
from typing import Any

import pandas as pd
import pytest

from hep2flow.errors import UserError
from hep2flow.reporting.comparison import compare_values, render_ablation
from hep2flow.reporting.report_content import Family, ModelResult

SPECIMENS = [str(index // 20) for index in range(200)]
CELLS = pd.DataFrame({"cell_id": [f"cell-{index:03d}" for index in range(200)], "specimen_id": SPECIMENS})


def right_on(first: int, last: int = 200) -> pd.DataFrame:
    """Predictions of 200 cells that are right from ``first`` to before ``last``."""
    predicted = ["a" if first <= index < last else "b" for index in range(200)]
    return pd.DataFrame({"cell_id": CELLS["cell_id"], "truth": "a", "predicted": predicted})


def spread(hits: int) -> pd.DataFrame:
    """Predictions right on so many of the 20 cells of each of the ten specimens."""
    predicted = ["a" if index % 20 < hits else "b" for index in range(200)]
    return pd.DataFrame({"cell_id": CELLS["cell_id"], "truth": "a", "predicted": predicted})


def compared(
    key: str,
    predictions: dict[str, list[pd.DataFrame]],
    cells: pd.DataFrame = CELLS,
    subset: str = "test",
    *,
    selected_on_test: bool = False,
) -> dict[str, Any]:
    """The comparison of values with these predictions, one table per seed."""
    metrics = {"subset": subset, "selected_on_test": selected_on_test}
    families = {
        value: Family([ModelResult("", "", {}, {}, metrics, [], table) for table in tables], cells)
        for value, tables in predictions.items()
    }
    return compare_values(key, families)


def test_each_value_stands_against_the_first_with_its_seeds() -> None:
    found = compared("data.mask", {"none": [spread(10), spread(12)], "apply": [spread(14)]}, CELLS, "test")
    json.dumps(found, allow_nan=False)
    none, apply = found["values"]
    assert (none["value"], none["seeds"], none["difference"], none["ci95"]) == ("none", 2, None, None)
    assert none["aca"] == pytest.approx(0.55)
    assert none["seed_sd"] == pytest.approx(0.05 * 2**0.5)  # 50 % and 60 %: each half of ten points from their mean
    assert (apply["seeds"], apply["aca"], apply["seed_sd"]) == (1, pytest.approx(0.7), None)
    # Every specimen gains alike: whatever is drawn, the difference is the same.
    assert apply["difference"] == pytest.approx(0.15)
    assert apply["ci95"] == pytest.approx([0.15, 0.15])

    text = render_ablation(found)
    header, _, first, second = text.splitlines()[:4]
    assert header.startswith("| data.mask | seeds | cells | ACA, %")
    assert [field.strip() for field in first.split("|")[1:-1]] == ["none", "2", "200", "55.0 ± 7.1", "reference"]
    assert [field.strip() for field in second.split("|")[1:-1]] == ["apply", "1", "200", "70.0", "+15.0 [15.0, 15.0]"]
    assert len({len(line) for line in (header, first, second)}) == 1
    assert "- masked is 15.0 points above unmasked; the interval [15.0, 15.0] does not hold 0" in text
    assert "200 test cells, which chose nothing" in text
    assert "specimen-clustered bootstrap" in text
    assert "give --seeds 3 or more" in text


def test_a_difference_inside_the_noise_is_told_as_such() -> None:
    # One specimen wholly gained, another wholly lost, and one cell gained.
    values = {"0.1": [right_on(20)], "0.2": [right_on(0, 181)]}
    text = render_ablation(compared("optim.lr", values, CELLS.assign(specimen_id=None), "validation"))
    assert "- optim.lr=0.2 is 0.5 points above optim.lr=0.1; the interval [-" in text
    assert "holds 0: inside the noise." in text
    assert "200 validation cells, which also chose the epoch of every training: optimistic" in text
    assert "cell bootstrap: specimens unknown" in text
    assert "The paper claims" not in text


def test_a_reference_that_is_better_is_told_too() -> None:
    text = render_ablation(
        compared("optim.lr", {"0.1": [spread(14)], "0.2": [spread(10)], "0.3": [spread(14)]}, CELLS, "test")
    )
    assert "- optim.lr=0.2 is 20.0 points below optim.lr=0.1" in text
    assert "- optim.lr=0.3 is exactly as accurate as optim.lr=0.1; the interval [0.0, 0.0] holds 0" in text


@pytest.mark.parametrize(
    ("masked", "unmasked", "words"),
    [
        (spread(14), spread(10), "here it is +20.0, interval [20.0, 20.0], which lies above all of that"),
        (spread(10), spread(14), "here it is -20.0, interval [-20.0, -20.0], which lies below all of that"),
        (right_on(0, 181), right_on(20), "which holds all of that"),
    ],
)
@pytest.mark.parametrize("order", [("apply", "none"), ("none", "crop", "apply")])
def test_the_papers_claim_stands_beside_masked_minus_unmasked_whatever_the_reference(
    masked: pd.DataFrame, unmasked: pd.DataFrame, words: str, order: tuple[str, ...]
) -> None:
    tables = {"apply": [masked], "none": [unmasked], "crop": [unmasked]}
    text = render_ablation(compared("data.mask", {value: tables[value] for value in order}, CELLS, "test"))
    assert "The paper claims 0.3 to 0.5 points for masked over unmasked" in text
    assert words in text


def test_a_claim_half_inside_the_interval() -> None:
    # 0.4 points in every specimen but for one that gains nothing: 250 cells in each.
    cells = pd.DataFrame(
        {"cell_id": [f"{i:04d}" for i in range(2500)], "specimen_id": [str(i // 250) for i in range(2500)]}
    )
    truth = cells.assign(truth="a", predicted="a")[["cell_id", "truth", "predicted"]]
    unmasked = truth.assign(predicted=["b" if i % 250 == 0 and i >= 250 else "a" for i in range(2500)])
    text = render_ablation(compared("data.mask", {"none": [unmasked], "apply": [truth]}, cells, "test"))
    assert "which holds part of that" in text


def test_selection_on_the_test_set_is_said() -> None:
    found = compared("optim.lr", {"1": [spread(3)], "2": [spread(4)]}, CELLS, "validation", selected_on_test=True)
    assert "selected on the test set: optimistic, not a test result" in render_ablation(found)


def test_values_evaluated_on_other_cells_are_refused_with_the_key() -> None:
    with pytest.raises(UserError, match=r"data\.split\.seed: its values were evaluated on different cells"):
        compared("data.split.seed", {"0": [spread(3)], "1": [spread(3).iloc[1:]]}, CELLS, "validation")
