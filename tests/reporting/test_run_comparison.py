from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from hep2flow.evaluation.metrics import evaluate_predictions
from hep2flow.reporting.comparison import compare, difference_table, remarks, render_pairs
from hep2flow.reporting.page import render as render_page
from hep2flow.reporting.page import summary
from hep2flow.reporting.report_content import Family, ReportContent
from hep2flow.reporting.sentences import interval_basis, verdict
from tests.reporting.content import LABELS, make_content, make_content_of_seeds


@pytest.fixture(scope="module")
def content() -> ReportContent:
    return make_content(shared_specimens=0)


def right_on(content: ReportContent, number: int, gains: dict[str, int]) -> Family:
    """A model that is right on so many cells of each of these specimens, and wrong on all others."""
    model = content.models[number]
    table = model.predictions.copy()
    within = table.groupby(
        table["cell_id"].map(content.cells.set_index("cell_id")["specimen_id"]), sort=False
    ).cumcount()
    specimens = table["cell_id"].map(content.cells.set_index("cell_id")["specimen_id"])
    wrong = table["truth"].map(lambda label: LABELS[LABELS.index(label) - 1])
    table["predicted"] = table["truth"].where(within < specimens.map(gains).fillna(0), wrong)
    metrics = model.metrics | evaluate_predictions(table, content.cells, LABELS)
    return Family([replace(model, predictions=table, metrics=metrics)], content.cells)


def compared(first: Family, second: Family) -> dict[str, Any]:
    return compare(first, second, first.compare_with(second))


def test_a_difference_inside_the_noise_is_said_in_words(content: ReportContent) -> None:
    # Gains of 20, -10 and 4 cells: 14 of 734. Of the eight signs those of 34, 26, 14 and their opposites come as far.
    first, second = right_on(content, 0, {"22": 20, "23": 4}), right_on(content, 1, {"13": 10})
    found = compared(first, second)
    low, high = found["ci95"]
    assert found["difference"] == pytest.approx(14 / 734)
    assert found["permutation"]["p"] == 6 / 8
    assert low < 0 < high
    assert found["sentence"] == (
        f"The difference of 1.9 points is inside the noise: p = 0.75, interval [{100 * low:.1f}, {100 * high:.1f}]."
    )
    assert found["outside_noise"] is False
    assert compared(second, first)["sentence"].startswith("The difference of -1.9 points is inside the noise: p = 0.75")
    json.dumps(found, allow_nan=False)


def test_a_difference_outside_the_noise_needs_both_p_and_interval(content: ReportContent) -> None:
    specimens = content.cells.loc[content.cells["official_split"] == "test", "specimen_id"].unique()
    nothing = right_on(content, 1, {})
    everywhere = compared(right_on(content, 0, dict.fromkeys(specimens, 5)), nothing)
    assert everywhere["permutation"]["p"] == 2 / 2**14
    assert "is outside the noise: p = 0.00012, interval [" in everywhere["sentence"]
    # Five gained specimens: 2 of 32 ways, however much they gain.
    few = compared(right_on(content, 0, dict.fromkeys(specimens[:5], 30)), nothing)
    assert few["ci95"][0] > 0
    assert "is inside the noise: p = 0.062, interval [" in few["sentence"]
    assert "so few differ that p could not be below 0.062" in " ".join(remarks(few))


def test_the_table_holds_the_scores_the_difference_and_its_tests(content: ReportContent) -> None:
    first, second = right_on(content, 0, {"22": 20, "23": 4}), right_on(content, 1, {"13": 10})
    found = compared(first, second)
    rows = {row[0].text: [entry.text for entry in row[1:]] for row in difference_table(found).rows}
    assert rows["Recipe, seeds"] == ["convnext-b, 0", "coat-mini, 0", ""]
    for name, key in (("ACA, correct / total", "aca"), ("MCA, mean of the recalls", "mca"), ("Macro F1", "macro_f1")):
        ours, theirs, difference = rows[f"{name} (95 % interval)"]
        assert ours.startswith(f"{100 * first.scores[key]:.1f} % (")
        assert theirs.startswith(f"{100 * second.scores[key]:.1f} % (")
        assert difference.startswith(f"{100 * (first.scores[key] - second.scores[key]):+.1f}")
    assert rows["Permutation test"] == ["", "", "p = 0.75"]
    assert rows["McNemar's test: cells right in this one only"][:2] == ["24", "10"]
    text = " ".join(remarks(found))
    assert "14 specimens, 3 of them not 0, with their signs set in all 8 ways" in text
    assert "cells of one specimen are not independent, as it takes them to be" in text
    assert found["recipes"]["optim.name"] == ["adam", "adamp"]
    assert "optim.lr" not in found["recipes"]


def test_several_seeds_and_unknown_specimens_are_said() -> None:
    content = make_content_of_seeds(3, shared_specimens=0)
    cells = content.cells.assign(specimen_id=None)
    best, other = (Family(family.models, cells) for family in content.families)
    told = " ".join(remarks(compared(best, other)))
    shown = [family.representative.metrics["seed"] for family in (best, other)]
    assert "paired, of the means over seeds, which are not drawn" in told
    assert f"McNemar's test of seeds {shown[0]} and {shown[1]}, those of median ACA" in told
    assert "the gains of 734 cells" in told
    assert "10,000 random ways" in told
    assert "for want of specimens: cells of one specimen are not independent, so that p is too small" in told


def test_the_report_of_two_models_shows_the_same_comparison(content: ReportContent) -> None:
    assert content.lead is not None
    found = compare(content.families[0], content.families[1], content.lead)
    page = render_page(content).replace("\N{NO-BREAK SPACE}", " ").replace("&#39;", "'")
    evidence = page[page.index('<section id="evidence">') : page.index('<section id="specimens">')]
    assert "The difference on the same 734 cells" in evidence
    assert all(remark in evidence for remark in remarks(found))
    # The verdict judges alike, in the page and in its summary.
    judged = found["sentence"].partition(" points ")[2]
    assert judged in " ".join(verdict(content))
    assert judged in summary(content)


def test_a_report_of_one_model_compares_nothing(content: ReportContent) -> None:
    alone = replace(content, models=content.models[:1])
    assert alone.lead is None
    assert "Best and next" not in render_page(alone)


def test_patterns_of_one_specimen_are_named_beside_the_intervals(content: ReportContent) -> None:
    assert "of one specimen" not in interval_basis(content)
    merged = content.cells["specimen_id"].replace({"21": "22", "15": "23"})
    cells = content.cells.assign(specimen_id=merged)
    models = [
        replace(model, metrics=model.metrics | evaluate_predictions(model.predictions, cells, LABELS))
        for model in content.models
    ]
    told = interval_basis(replace(content, models=models, cells=cells))
    assert (
        "All cells of fine speckled and of homogeneous are of one specimen each: what another specimen would do" in told
    )
    # Evaluations of earlier versions do not say.
    for model in models:
        del model.metrics["ci95_one_specimen"]
    assert "of one specimen" not in interval_basis(replace(content, models=models, cells=cells))


def test_what_differs_is_told_and_odd_names_break_no_table(content: ReportContent) -> None:
    first, second = content.families
    named = {"run": "a|b", "dataset": "d1", "split": "s1"}
    found = compared(first, first)
    found["first"] |= named
    found["second"] |= {**named, "run": "c", "split": "s2"}
    text = render_pairs({"runs": ["a|b", "c"], "each_best": False, "unpaired": {"c": ["mine"]}, "comparisons": [found]})
    assert text.startswith("# a\\|b against c\n")
    assert "Only in c: mine." in text
    assert "The recipes do not differ." in text
    rows = [[field.strip() for field in line[2:-2].split(" | ")] for line in text.splitlines() if line.startswith("| ")]
    assert {len(row) for row in rows} == {4}
    assert ["Data set", "d1", "d1", "equal"] in rows
    assert ["Split", "s1", "s2", "different"] in rows
    assert "| optim.name " in render_pairs(
        {"runs": ["a", "a"], "each_best": True, "unpaired": {}, "comparisons": [compared(first, second)]}
    )
