"""Ablation: one key of a recipe under several values, on the same cells, each against the first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from hep2flow.errors import UserError
from hep2flow.evaluation.paired_tests import paired_difference
from hep2flow.reporting.sentences import points
from hep2flow.reporting.table import Entry, Table
from hep2flow.selected_on_test import OPTIMISTIC

MASK_NAMES = {"apply": "masked", "none": "unmasked", "crop": "cropped"}
PAPER_GAIN = (0.003, 0.005)  # section 3.1.1: masked over unmasked, "in most examinations"


def compare(
    key: str,
    predictions: Mapping[str, Sequence[pd.DataFrame]],
    cells: pd.DataFrame,
    subset: str,
    *,
    selected_on_test: bool = False,
) -> dict[str, Any]:
    """Every value's accuracy and its difference to the first value's, JSON-able.

    key:         of the recipe, for example ``data.mask``
    predictions: value -> one table per seed (cell_id, truth, predicted), at least two values, the reference first
    cells:       at least the predicted cells: cell_id, specimen_id (nullable)
    subset:      test | validation: what the predictions are of

    Returns ``key``, ``subset``, ``selected_on_test``, ``n`` (cells), ``ci95_method``, ``reference`` (a value), ``values``
    (a list, in the order given, of ``value``, ``seeds``, ``aca`` (mean over seeds), ``seed_sd`` (n - 1, None for one
    seed), ``difference`` to the reference and its ``ci95``, both in [-1, 1] and None for the reference itself), and,
    for the key data.mask with apply and none, ``masking``: ``difference`` and ``ci95`` of masked minus unmasked.

    Raises UserError where the values were not evaluated on the same cells.
    """
    reference = next(iter(predictions))
    try:
        found = {
            value: paired_difference(tables, predictions[reference], cells) for value, tables in predictions.items()
        }
        masking = None
        if key == "data.mask" and {"apply", "none"} <= set(predictions):
            masking = paired_difference(predictions["apply"], predictions["none"], cells)
    except ValueError as error:
        raise UserError(
            f"{key}: its values were evaluated on different cells ({error}), so they cannot be compared; ablate a key "
            "that leaves the split alone, or take data with an official test set"
        ) from error
    return {
        "key": key,
        "subset": subset,
        "selected_on_test": selected_on_test,
        "n": len(predictions[reference][0]),
        "ci95_method": found[reference]["ci95_method"],
        "reference": reference,
        "values": [
            {
                "value": value,
                "seeds": paired["seeds"][0],
                "aca": paired["first"],
                "seed_sd": paired["seed_sd"][0],
                "difference": None if value == reference else paired["difference"],
                "ci95": None if value == reference else paired["ci95"],
            }
            for value, paired in found.items()
        ],
        "masking": masking and {name: masking[name] for name in ("difference", "ci95")},
    }


def render(found: Mapping[str, Any]) -> str:
    """What :func:`compare` found, as a Markdown table that a terminal shows as well, and what it says in sentences."""
    reference = _name(found["key"], found["reference"])
    others = [row for row in found["values"] if row["difference"] is not None]
    sentences = [_reading(_name(found["key"], row["value"]), reference, row) for row in others]
    if found["masking"]:
        sentences.append(_claim(found["masking"]))
    sentences.append(_cells(found))
    sentences.append(_intervals(found))
    return "\n".join([_table(found).markdown(), "", *(f"- {sentence}" for sentence in sentences), ""])


def _table(found: Mapping[str, Any]) -> Table:
    header = [
        found["key"],
        "seeds",
        "cells",
        "ACA, % (mean ± standard deviation over seeds)",
        f"difference to {found['reference']}, points (95 % interval)",
    ]
    rows = []
    for row in found["values"]:
        deviation = "" if row["seed_sd"] is None else f" ± {100 * row['seed_sd']:.1f}"
        difference = "reference"
        if row["difference"] is not None:
            difference = f"{100 * row['difference']:+.1f} {points(row['ci95'])}"
        accuracy = f"{100 * row['aca']:.1f}{deviation}"
        rows.append(
            [Entry(text) for text in (row["value"], str(row["seeds"]), f"{found['n']:,}", accuracy, difference)]
        )
    return Table("", header, rows)


def _name(key: str, value: str) -> str:
    """A value as a sentence names it."""
    return MASK_NAMES.get(value, value) if key == "data.mask" else f"{key}={value}"


def _reading(value: str, reference: str, row: Mapping[str, Any]) -> str:
    gain = 100 * row["difference"]
    side = "above" if gain > 0 else "below"
    compared = f"is {abs(gain):.1f} points {side}" if gain else "is exactly as accurate as"
    low, high = row["ci95"]
    judged = (
        "holds 0: inside the noise" if low <= 0 <= high else "does not hold 0: more than the choice of cells explains"
    )
    return f"{value} {compared} {reference}; the interval {points(row['ci95'])} {judged}."


def _claim(masking: Mapping[str, Any]) -> str:
    """The paper's words beside ours."""
    low, high = masking["ci95"]
    claimed = f"{100 * PAPER_GAIN[0]:.1f} to {100 * PAPER_GAIN[1]:.1f}"
    if low <= PAPER_GAIN[0] and PAPER_GAIN[1] <= high:
        judged = "which holds all of that"
    elif low <= PAPER_GAIN[1] and PAPER_GAIN[0] <= high:
        judged = "which holds part of that"
    else:
        judged = f"which lies {'above' if low > PAPER_GAIN[1] else 'below'} all of that"
    return (
        f"The paper claims {claimed} points for masked over unmasked (section 3.1.1, on its own data, without an interval); "
        f"here it is {100 * masking['difference']:+.1f}, interval {points(masking['ci95'])}, {judged}."
    )


def _cells(found: Mapping[str, Any]) -> str:
    if found["selected_on_test"]:
        return f"Cells: {found['n']:,}, {OPTIMISTIC}."
    if found["subset"] == "validation":
        return f"Cells: {found['n']:,} validation cells, which also chose the epoch of every training: optimistic."
    return f"Cells: {found['n']:,} test cells, which chose nothing."


def _intervals(found: Mapping[str, Any]) -> str:
    text = f"Intervals: {found['ci95_method']}, paired, of the means over seeds; seeds themselves are not drawn"
    if any(row["seed_sd"] is None for row in found["values"]):
        return f"{text}, and how far another seed would move the ACA is unknown for one seed: give --seeds 3 or more."
    return f"{text}: hold the difference beside the standard deviations too."
