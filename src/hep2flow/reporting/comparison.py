"""Comparisons of models on the same cells: in pairs (``runs compare``), and one key's values with the first (``ablate``).

Two reports, because they claim different things: a pair shows three scores and is judged by a permutation test as well,
an ablation is one table of all values and is judged by the interval alone. ``ablation.json`` and ``--json`` keep their
keys.
"""

from collections.abc import Mapping
from typing import Any

from hep2flow.errors import UserError
from hep2flow.evaluation.paired_tests import DifferentCellsError, paired_difference
from hep2flow.reporting.formatting import interval, percent, points, probability, significance, zero_in_interval
from hep2flow.reporting.report_content import SIGNIFICANCE_LEVEL, Family
from hep2flow.reporting.table_markup import Table, escape_markdown, flatten, table_row
from hep2flow.selected_on_test import OPTIMISTIC_WARNING

SCORES = {"aca": "ACA, correct / total", "mca": "MCA, mean of the recalls", "macro_f1": "Macro F1"}
MASK_NAMES = {"apply": "masked", "none": "unmasked", "crop": "cropped"}
PAPER_GAIN = (0.003, 0.005)  # section 3.1.1: masked over unmasked, "in most examinations"


def compare(first: Family, second: Family, paired: Mapping[str, Any]) -> dict[str, Any]:
    """Everything :func:`difference_table` and :func:`remarks` show of two models; ``paired``: first.compare_with(second).

    Returns:
        ``first`` and ``second`` {recipe, name (with every reservation), subset, seeds (their numbers), aca, mca, macro_f1
        (means over seeds), ci95 of each, aca_sd (None for one seed)}, ``n`` (cells), of ``paired`` difference, ci95,
        ci95_method, permutation, mcnemar, outside_noise; ``sentence``; and ``recipes``, the keys in which the recipes
        differ: key -> [first's value, second's], as text. JSON-able.
    """
    ours, theirs = flatten(first.recipe), flatten(second.recipe)
    values = {key: [ours.get(key, "–"), theirs.get(key, "–")] for key in ours | theirs}
    of_pair = ("difference", "ci95", "ci95_method", "permutation", "mcnemar", "outside_noise")
    return {
        "first": _scores(first),
        "second": _scores(second),
        "n": first.representative.metrics["n"],
        **{key: paired[key] for key in of_pair},
        "sentence": f"The difference of {_signed_points(paired['difference']).lstrip('+')} points {significance(paired)}.",
        "recipes": {key: pair for key, pair in values.items() if pair[0] != pair[1]},
    }


def _scores(family: Family) -> dict[str, Any]:
    return {
        "recipe": family.recipe_name,
        "name": family.name,
        "subset": family.representative.metrics["subset"],
        "seeds": family.seeds,
        **{key: family.scores[key] for key in (*SCORES, "ci95")},
        "aca_sd": family.deviation("aca"),
    }


def difference_table(found: Mapping[str, Any]) -> Table:
    """Scores of both models, their difference and its tests; and, of two runs, what they ran on."""
    sides = found["first"], found["second"]
    both = [f"{side['recipe']}, {', '.join(map(str, side['seeds']))}" for side in sides]
    rows = [table_row("Recipe, seeds", *both, "")]
    for key, name in SCORES.items():
        difference = _signed_points(sides[0][key] - sides[1][key])
        if key == "aca":
            difference += f" {points(found['ci95'])}"
        both = [f"{percent(side[key])} ({interval(side['ci95'][key])})" for side in sides]
        rows.append(table_row(f"{name} (95 % interval)", *both, difference))
    mcnemar = found["mcnemar"]
    only = [f"{mcnemar[key]:,}" for key in ("first_only", "second_only")]
    rows.append(table_row("Permutation test", "", "", probability(found["permutation"]["p"])))
    rows.append(table_row("McNemar's test: cells right in this one only", *only, probability(mcnemar["p"])))
    if "run" in sides[0]:
        for key, name in (("dataset", "Data set"), ("split", "Split")):
            both = [side[key] for side in sides]
            rows.append(table_row(name, *both, "equal" if both[0] == both[1] else "different"))
    header = ["", *map(_heading, sides), "First minus second, points"]
    return Table(f"The difference on the same {found['n']:,} cells", header, rows, sortable=False)


def remarks(found: Mapping[str, Any]) -> list[str]:
    """The judgement of a pair, and what it rests on, in sentences."""
    permutation, mcnemar = found["permutation"], found["mcnemar"]
    several = max(len(found[side]["seeds"]) for side in ("first", "second")) > 1
    over = ", of the means over seeds, which are not drawn" if several else ""
    ways = f"all {permutation['ways']:,} ways" if permutation["exact"] else f"{permutation['ways']:,} random ways"
    gains = f"the gains of {permutation['units']:,} {permutation['unit']}s, {permutation['moved']:,} of them not 0"
    test = f"Permutation test: {gains}, with their signs set in {ways}, two-sided"
    if permutation["unit"] == "cell":
        test += "; by cells, for want of specimens: cells of one specimen are not independent, so that p is too small"
    if permutation["lowest_p"] > SIGNIFICANCE_LEVEL:
        test += f"; so few differ that p could not be below {permutation['lowest_p']:.2g}, whatever the gains"
    which = f" of seeds {mcnemar['seeds'][0]} and {mcnemar['seeds'][1]}, those of median ACA" if several else ""
    return [
        found["sentence"],
        f"Interval: {found['ci95_method']}, paired{over}. Outside the noise are a p below {SIGNIFICANCE_LEVEL} and an "
        "interval without 0, both.",
        f"{test}.",
        f"McNemar's test{which}, exact: cells of one specimen are not independent, as it takes them to be; its p is "
        "usually too small, and judges nothing here.",
    ]


def render_pairs(compared: Mapping[str, Any]) -> str:
    """What :func:`hep2flow.stages.compare_runs.compare_runs` found, in Markdown that a terminal shows as well."""
    blocks = [f"# {escape_markdown(' against '.join(compared['runs']))}"]
    if compared["each_best"]:
        blocks.append("The two runs share no recipe's name: the best of each is compared.")
    for run, recipes in compared["unpaired"].items():
        blocks.append(f"Only in {run}: {escape_markdown(', '.join(recipes))}.")
    for found in compared["comparisons"]:
        sides, table = (found["first"], found["second"]), difference_table(found)
        names = " and ".join(dict.fromkeys(side["recipe"] for side in sides))
        blocks += [f"## {escape_markdown(names)}", f"{table.caption}:", table.markdown()]
        blocks.append("\n".join(f"- {escape_markdown(remark)}" for remark in remarks(found)))
        rows = [table_row(key, *both) for key, both in found["recipes"].items()]
        differing = Table("", ["What differs", *map(_heading, sides)], rows)
        blocks.append(differing.markdown() if rows else "The recipes do not differ.")
    return "\n\n".join(blocks) + "\n"


def _heading(side: Mapping[str, Any]) -> str:
    return f"{side['run']}: {side['name']}" if "run" in side else str(side["name"])


def _signed_points(difference: float) -> str:
    """A difference in points, without a sign before a rounded 0."""
    return f"{100 * difference:.1f}".replace("-0.0", "0.0") if abs(difference) < 0.0005 else f"{100 * difference:+.1f}"


def compare_values(key: str, families: Mapping[str, Family]) -> dict[str, Any]:
    """The accuracy of every value of a recipe's key, and its difference to that of the first value, JSON-able.

    Args:
        key: Of the recipe, for example ``data.mask``.
        families: Value -> its trainings, at least two values, the reference first.

    Returns:
        ``key``, ``subset``, ``selected_on_test``, ``n`` (cells), ``ci95_method``, ``reference`` (a value), ``values`` (a
        list, in the order given, of ``value``, ``seeds``, ``aca`` (mean over seeds), ``seed_sd`` (n - 1, None for one
        seed), ``difference`` to the reference and its ``ci95``, both in [-1, 1] and None for the reference itself),
        and, for the key data.mask with apply and none, ``masking``: ``difference`` and ``ci95`` of masked minus unmasked.

    Raises:
        UserError: The values were not evaluated on the same cells.
    """
    reference, *_, last = families
    metrics = families[last].models[0].metrics
    tables = {value: [model.predictions for model in family.models] for value, family in families.items()}
    cells = families[reference].cells
    try:
        found = {value: paired_difference(own, tables[reference], cells) for value, own in tables.items()}
        masking = None
        if key == "data.mask" and {"apply", "none"} <= set(tables):
            masking = paired_difference(tables["apply"], tables["none"], cells)
    except DifferentCellsError as error:
        raise UserError(
            f"{key}: its values were evaluated on different cells ({error}), so they cannot be compared; ablate a key "
            "that leaves the split alone, or take data with an official test set"
        ) from error
    return {
        "key": key,
        "subset": metrics["subset"],
        "selected_on_test": metrics["selected_on_test"],
        "n": len(tables[reference][0]),
        "ci95_method": found[reference]["ci95_method"],
        "reference": reference,
        "values": [
            {
                "value": value,
                "seeds": paired["seeds"][0],
                "aca": paired["first"],
                "seed_sd": paired["seed_sd"][0],
                **{name: None if value == reference else paired[name] for name in ("difference", "ci95")},
            }
            for value, paired in found.items()
        ],
        "masking": masking and {name: masking[name] for name in ("difference", "ci95")},
    }


def render_ablation(found: Mapping[str, Any]) -> str:
    """What :func:`compare_values` found, as a Markdown table that a terminal shows as well, and in sentences."""
    reference = _value_name(found["key"], found["reference"])
    rows, sentences = [], []
    for row in found["values"]:
        accuracy = f"{100 * row['aca']:.1f}" + ("" if row["seed_sd"] is None else f" ± {100 * row['seed_sd']:.1f}")
        difference = "reference"
        if row["difference"] is not None:
            difference = f"{100 * row['difference']:+.1f} {points(row['ci95'])}"
            sentences.append(_difference_sentence(_value_name(found["key"], row["value"]), reference, row))
        rows.append(table_row(row["value"], str(row["seeds"]), f"{found['n']:,}", accuracy, difference))
    if found["masking"]:
        sentences.append(_masking_claim(found["masking"]))
    sentences += [_cells_sentence(found), _interval_sentence(found)]
    accuracy, difference = "ACA, % (mean ± standard deviation over seeds)", f"difference to {found['reference']}"
    header = [found["key"], "seeds", "cells", accuracy, f"{difference}, points (95 % interval)"]
    return "\n".join([Table("", header, rows).markdown(), "", *(f"- {sentence}" for sentence in sentences), ""])


def _value_name(key: str, value: str) -> str:
    return MASK_NAMES.get(value, value) if key == "data.mask" else f"{key}={value}"


def _difference_sentence(value: str, reference: str, row: Mapping[str, Any]) -> str:
    gain = 100 * row["difference"]
    side = "above" if gain > 0 else "below"
    compared = f"is {abs(gain):.1f} points {side}" if gain else "is exactly as accurate as"
    return f"{value} {compared} {reference}; the interval {points(row['ci95'])} {zero_in_interval(row['ci95'])}."


def _masking_claim(masking: Mapping[str, Any]) -> str:
    """The paper's claim beside this difference."""
    low, high = masking["ci95"]
    claimed = f"{100 * PAPER_GAIN[0]:.1f} to {100 * PAPER_GAIN[1]:.1f}"
    if low <= PAPER_GAIN[0] and PAPER_GAIN[1] <= high:
        judged = "which holds all of that"
    elif low <= PAPER_GAIN[1] and PAPER_GAIN[0] <= high:
        judged = "which holds part of that"
    else:
        judged = f"which lies {'above' if low > PAPER_GAIN[1] else 'below'} all of that"
    source = "section 3.1.1, on its own data, without an interval"
    claim = f"The paper claims {claimed} points for masked over unmasked ({source})"
    return f"{claim}; here it is {100 * masking['difference']:+.1f}, interval {points(masking['ci95'])}, {judged}."


def _cells_sentence(found: Mapping[str, Any]) -> str:
    if found["selected_on_test"]:
        return f"Cells: {found['n']:,}, {OPTIMISTIC_WARNING}."
    if found["subset"] == "validation":
        return f"Cells: {found['n']:,} validation cells, which also chose the epoch of every training: optimistic."
    return f"Cells: {found['n']:,} test cells, which chose nothing."


def _interval_sentence(found: Mapping[str, Any]) -> str:
    text = f"Intervals: {found['ci95_method']}, paired, of the means over seeds; seeds themselves are not drawn"
    if any(row["seed_sd"] is None for row in found["values"]):
        return f"{text}, and how far another seed would move the ACA is unknown for one seed: give --seeds 3 or more."
    return f"{text}: hold the difference beside the standard deviations too."
