"""Two models on the same cells, side by side: scores, their difference, and whether it is more than noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hep2flow.reporting.report_content import NOISE, Family
from hep2flow.reporting.report_tables import of_all_seeds
from hep2flow.reporting.sentences import interval, noise, percent, points, probability
from hep2flow.reporting.table import Entry, Table, escape_markdown, flatten

SCORES = {"aca": "ACA, correct / total", "mca": "MCA, mean of the recalls", "macro_f1": "Macro F1"}


def compare(first: Family, second: Family, paired: Mapping[str, Any]) -> dict[str, Any]:
    """Everything :func:`table` and :func:`remarks` show of two models, JSON-able.

    paired: ``first.against(second)``

    Returns ``first`` and ``second`` {recipe, name (with every reservation), subset, seeds (their numbers), aca, mca,
    macro_f1 (means over seeds), ci95 of each, aca_sd (None for one seed)}, ``n`` (cells), of ``paired`` difference, ci95,
    ci95_method, permutation, mcnemar, outside_noise; ``sentence``; and ``recipes``, the keys in which the recipes differ:
    key -> [first's value, second's], as text.
    """
    kept = ("difference", "ci95", "ci95_method", "permutation", "mcnemar", "outside_noise")
    ours, theirs = flatten(of_all_seeds(first)), flatten(of_all_seeds(second))
    values = {key: [ours.get(key, "–"), theirs.get(key, "–")] for key in dict.fromkeys([*ours, *theirs])}
    return {
        "first": _side(first),
        "second": _side(second),
        "n": first.shown.metrics["n"],
        **{key: paired[key] for key in kept},
        "sentence": f"The difference of {_points(paired['difference']).lstrip('+')} points {noise(paired)}.",
        "recipes": {key: pair for key, pair in values.items() if pair[0] != pair[1]},
    }


def table(found: Mapping[str, Any]) -> Table:
    """Scores of both models, their difference and its tests; and, of two runs, what they ran on."""
    sides = found["first"], found["second"]

    def row(name: str, both: Sequence[str], difference: str = "") -> list[Entry]:
        return [Entry(name), *map(Entry, both), Entry(difference)]

    def digests(key: str) -> list[Entry]:
        both = [side[key] for side in sides]
        return row(
            key.capitalize().replace("Dataset", "Data set"), both, "equal" if both[0] == both[1] else "different"
        )

    rows = [row("Recipe, seeds", [f"{side['recipe']}, {', '.join(map(str, side['seeds']))}" for side in sides])]
    for key, name in SCORES.items():
        difference = _points(sides[0][key] - sides[1][key])
        if key == "aca":
            difference += f" {points(found['ci95'])}"
        both = [f"{percent(side[key])} ({interval(side['ci95'][key])})" for side in sides]
        rows.append(row(f"{name} (95 % interval)", both, difference))
    mcnemar = found["mcnemar"]
    only = [f"{mcnemar[key]:,}" for key in ("first_only", "second_only")]
    rows.append(row("Permutation test", ["", ""], probability(found["permutation"]["p"])))
    rows.append(row("McNemar's test: cells right in this one only", only, probability(mcnemar["p"])))
    if "run" in sides[0]:
        rows += [digests("dataset"), digests("split")]
    header = ["", *map(_title, sides), "First minus second, points"]
    return Table(f"The difference on the same {found['n']:,} cells", header, rows, sortable=False)


def remarks(found: Mapping[str, Any]) -> list[str]:
    """The judgement, and what it rests on, in sentences."""
    permutation, mcnemar = found["permutation"], found["mcnemar"]
    several = max(len(found[side]["seeds"]) for side in ("first", "second")) > 1
    over = ", of the means over seeds, which are not drawn" if several else ""
    ways = f"all {permutation['ways']:,} ways" if permutation["exact"] else f"{permutation['ways']:,} random ways"
    test = (
        f"Permutation test: the gains of {permutation['units']:,} {permutation['unit']}s, {permutation['moved']:,} of them "
        f"not 0, with their signs set in {ways}, two-sided"
    )
    if permutation["unit"] == "cell":
        test += "; by cells, for want of specimens: cells of one specimen are not independent, so that p is too small"
    if permutation["lowest_p"] > NOISE:
        test += f"; so few differ that p could not be below {permutation['lowest_p']:.2g}, whatever the gains"
    which = f" of seeds {mcnemar['seeds'][0]} and {mcnemar['seeds'][1]}, those of median ACA" if several else ""
    return [
        found["sentence"],
        f"Interval: {found['ci95_method']}, paired{over}. Outside the noise are a p below {NOISE} and an interval without "
        "0, both.",
        f"{test}.",
        f"McNemar's test{which}, exact: cells of one specimen are not independent, as it takes them to be; its p is "
        "usually too small, and judges nothing here.",
    ]


def render(compared: Mapping[str, Any]) -> str:
    """What the stage of comparison found, in Markdown that a terminal shows as well."""
    blocks = [f"# {escape_markdown(' against '.join(compared['runs']))}"]
    if compared["each_best"]:
        blocks.append("The two runs share no recipe's name: the best of each is compared.")
    for run, recipes in compared["unpaired"].items():
        blocks.append(f"Only in {run}: {escape_markdown(', '.join(recipes))}.")
    for found in compared["comparisons"]:
        sides = found["first"], found["second"]
        names = " and ".join(dict.fromkeys(side["recipe"] for side in sides))
        blocks += [
            f"## {escape_markdown(names)}",
            f"{table(found).caption}:",
            table(found).markdown(),
            "\n".join(f"- {escape_markdown(remark)}" for remark in remarks(found)),
        ]
        if found["recipes"]:
            rows = [[Entry(text) for text in (key, *both)] for key, both in found["recipes"].items()]
            blocks.append(Table("", ["What differs", *map(_title, sides)], rows).markdown())
        else:
            blocks.append("The recipes do not differ.")
    return "\n\n".join(blocks) + "\n"


def _side(family: Family) -> dict[str, Any]:
    scores = family.scores
    return {
        "recipe": family.file,
        "name": family.name,
        "subset": family.shown.metrics["subset"],
        "seeds": family.seeds,
        **{key: scores[key] for key in (*SCORES, "ci95")},
        "aca_sd": family.deviation("aca"),
    }


def _title(side: Mapping[str, Any]) -> str:
    return f"{side['run']}: {side['name']}" if "run" in side else str(side["name"])


def _points(difference: float) -> str:
    """A difference in points, without a sign before a rounded 0."""
    return f"{100 * difference:.1f}".replace("-0.0", "0.0") if abs(difference) < 0.0005 else f"{100 * difference:+.1f}"
