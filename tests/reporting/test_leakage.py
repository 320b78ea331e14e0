"""The leakage line, its warnings and its table; and what the surest cells would give."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hep2flow.reporting.page import render, summary, write
from hep2flow.reporting.report_content import ReportContent
from hep2flow.reporting.report_tables import beside_the_paper, near_duplicates
from hep2flow.reporting.sentences import leakage, reject, warnings

from .content import make_content

PAIR = {"cells": ["00012", "00733"], "subsets": ["train", "val"], "patterns": ["golgi", "numem"], "correlation": 0.9934}
EQUAL = {**PAIR, "cells": ["a", "b"], "subsets": ["val", "test"], "correlation": None}


def found(*pairs: dict[str, Any], **more: Any) -> dict[str, Any]:
    equal = sum(pair["correlation"] is None for pair in pairs)
    duplicates = {"threshold": 0.99, "count": len(pairs), "equal": equal, "cells": 2 * len(pairs), "pairs": list(pairs)}
    return {"test_specimens": None, "id_blocks": None, "duplicates": duplicates, **more}


@pytest.fixture(scope="module")
def plain() -> ReportContent:
    return make_content(shared_specimens=0, paper_model=True, profile="paper")


def test_what_is_shared_is_told_and_warned_of(plain: ReportContent) -> None:
    shared = replace(plain, leakage=found(EQUAL, PAIR, test_specimens=3))
    told = leakage(shared)
    assert "3 specimens have cells in the test set and in training or validation too" in told
    assert "2 pairs of cells of different subsets are near-duplicates, 1 equal to the pixel" in told
    assert "a (validation) and b (test), equal to the pixel" in told
    assert len(warnings(shared)) == len(warnings(plain)) + 2
    written = summary(shared)
    assert "near-duplicates" in written[: written.index("ACA")]


def test_one_near_duplicate_is_named_by_its_correlation(plain: ReportContent) -> None:
    told = leakage(replace(plain, leakage=found(PAIR)))
    assert "1 pair of cells of different subsets is a near-duplicate, 0 equal to the pixel" in told
    assert "00012 (training) and 00733 (validation), correlation 0.993" in told


def test_nothing_shared_is_told_and_not_warned_of(plain: ReportContent) -> None:
    nothing = replace(plain, leakage=found(test_specimens=0))
    assert "No two cells of different subsets are near-duplicates." in leakage(nothing)
    assert "No specimen of the test set has cells in another subset." in leakage(nothing)
    assert warnings(nothing) == warnings(plain)
    assert near_duplicates(nothing).rows == []
    assert "<summary>Near-duplicates</summary>" not in render(nothing)


def test_blocks_of_ids_are_named_as_a_proxy(plain: ReportContent) -> None:
    told = leakage(replace(plain, leakage=found(id_blocks={"shared": 81, "of": 84})))
    assert "Of 84 blocks of contiguous IDs, a proxy for the unpublished specimens, 81 have cells in more than" in told


def test_the_closest_pairs_stand_in_the_method(plain: ReportContent) -> None:
    shared = replace(plain, leakage=found(EQUAL, PAIR))
    page = render(shared)
    method = page[page.index('<section id="method">') : page.index('<section id="provenance">')]
    assert "<summary>Near-duplicates</summary>" in method
    assert [[entry.text for entry in row] for row in near_duplicates(shared).rows] == [
        ["equal", "a", "validation", "golgi", "b", "test", "numem"],
        ["0.993", "00012", "training", "golgi", "00733", "validation", "numem"],
    ]


def test_the_surest_cells_are_read_from_the_curve(plain: ReportContent, tmp_path: Path) -> None:
    told = reject(plain.ranked)
    for model in plain.ranked:
        confidence = model.predictions.filter(like="p_").max(axis=1)
        surest = model.predictions.loc[confidence.sort_values(ascending=False).index[: round(0.8 * 734 + 0.5)]]
        accuracy = (surest["truth"] == surest["predicted"]).mean()
        assert (
            f"would be right on {100 * accuracy:.1f} % of them, against {100 * model.metrics['aca']:.1f} % of all"
            in told
        )
    write(plain, tmp_path)
    assert (tmp_path / "figures" / "reject.svg").is_file()
    assert told.replace(" %", "\N{NO-BREAK SPACE}%") in (tmp_path / "index.html").read_text(encoding="utf-8")


def test_evaluations_of_earlier_versions_have_no_reject_curve(plain: ReportContent) -> None:
    def without(model: Any) -> Any:
        return replace(model, metrics={key: value for key, value in model.metrics.items() if "reject" not in key})

    first, second = plain.models
    assert 'id="figure-reject"' not in render(replace(plain, models=[without(first), without(second)]))
    page = render(replace(plain, models=[without(first), second]))
    assert "answering only the surest" in page


def test_ours_stand_beside_the_papers_tables(plain: ReportContent) -> None:
    first, second = beside_the_paper(plain.families)
    rows = {row[0].text: [entry.text for entry in row] for row in (*first.rows, *second.rows)}
    column = 4 + [family.recipe_name for family in plain.families].index("convnext-b")
    assert rows["Optimizer"][:4] == ["Optimizer", "Adam", "AdamP", "optim.name"]
    assert rows["Optimizer"][column] == "adam"
    assert rows["Base learning rate"][column] == "4.0e-06"
    assert rows["Mixup"][column] == "–"  # these recipes do not know the key
    page = render(plain)
    assert "have no readable cells" in page
