"""The paper's claims: each verdict on cells made so that it is the only right one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score

from hep2flow.evaluation.metrics import evaluate_predictions
from hep2flow.reporting.page import render, summary
from hep2flow.reporting.paper_claims import (
    EASY,
    HARD,
    PATTERNS,
    claims,
    f1_gap,
    hardest_and_easiest,
    masked,
    size_not_imbalance,
    transformer,
)
from hep2flow.reporting.report_content import ModelResult, ReportContent

from .content import LABELS, make_content, make_content_of_seeds
from .sweep import make_sweep

UNTESTABLE = "not testable here"


@pytest.fixture(scope="module")
def content() -> ReportContent:
    return make_content(shared_specimens=0)


def judged(model: ModelResult, cells: pd.DataFrame, right: dict[str, float]) -> ModelResult:
    """The model right on such a share of each pattern's cells, evenly over its specimens, else one pattern off."""
    table = model.predictions.copy()
    place = table.groupby("truth").cumcount()
    share = table["truth"].map(right)
    hit = ((place + 1) * share).astype(int) > (place * share).astype(int)
    wrong = table["truth"].map(lambda label: LABELS[LABELS.index(label) - 1])
    table["predicted"] = table["truth"].where(hit, wrong)
    for label in LABELS:
        table[f"p_{label}"] = (table["predicted"] == label).astype(float)
    return replace(model, predictions=table, metrics=model.metrics | evaluate_predictions(table, cells, LABELS))


def with_shares(content: ReportContent, *shares: dict[str, float]) -> ReportContent:
    models = [judged(model, content.cells, right) for model, right in zip(content.models, shares, strict=True)]
    return replace(content, models=models)


def pairs(hard: float, easy: float, rest: float = 0.7) -> dict[str, float]:
    return dict.fromkeys(LABELS, rest) | dict.fromkeys(HARD, hard) | dict.fromkeys(EASY, easy)


@pytest.mark.parametrize(
    ("first", "second", "verdict"),
    [
        (pairs(0.1, 1.0), pairs(0.15, 0.95), "supported"),
        (pairs(1.0, 0.1), pairs(0.95, 0.15), "refuted"),
        (pairs(0.7, 0.7), pairs(0.7, 0.7), "inside the noise"),
        (pairs(0.1, 1.0), pairs(1.0, 0.1), "inside the noise"),  # one model for it, one against it
    ],
)
def test_hard_and_easy_patterns_are_told_by_every_model(
    content: ReportContent, first: dict[str, float], second: dict[str, float], verdict: str
) -> None:
    found, reason = hardest_and_easiest(with_shares(content, first, second))
    assert found == verdict
    for model in content.models:
        assert model.name in reason


def test_the_gap_is_that_of_scikit_learn_and_lies_in_its_interval(content: ReportContent) -> None:
    for family in content.families:
        table = family.models[0].predictions
        f1 = dict(
            zip(PATTERNS, f1_score(table["truth"], table["predicted"], labels=PATTERNS, average=None), strict=True)
        )
        expected = np.mean([f1[label] for label in EASY]) - np.mean([f1[label] for label in HARD])
        gap, (low, high), by_cells = f1_gap(family)
        assert gap == pytest.approx(expected)
        assert -1 <= low <= gap <= high <= 1
        assert low < high
        assert by_cells == ""


def test_the_gap_of_several_seeds_is_their_mean() -> None:
    family = make_content_of_seeds(3, shared_specimens=0).families[0]
    each = [f1_gap(replace(family, models=[model]))[0] for model in family.models]
    assert f1_gap(family)[0] == pytest.approx(np.mean(each))


def test_the_gap_by_cells_is_said_to_be_too_narrow(content: ReportContent) -> None:
    unknown = replace(content, cells=content.cells.assign(specimen_id=None))
    assert "specimens unknown: too narrow" in hardest_and_easiest(unknown)[1]


def test_patterns_of_one_specimen_tell_nothing_of_others(content: ReportContent) -> None:
    models = [replace(model, metrics=model.metrics | {"ci95_one_specimen": ["nucleolar"]}) for model in content.models]
    verdict, reason = hardest_and_easiest(replace(content, models=models))
    assert verdict == UNTESTABLE
    assert reason == "All evaluated cells of nucleolar are of one specimen each."


@pytest.mark.parametrize(
    ("convnext", "coat", "verdict"),
    [(0.4, 0.9, "supported"), (0.9, 0.4, "refuted"), (0.70, 0.71, "inside the noise")],
)
def test_the_transformer_is_held_against_the_convnet_whichever_leads(
    content: ReportContent, convnext: float, coat: float, verdict: str
) -> None:
    rng = np.random.default_rng(0)
    jitter = {label: float(rng.uniform(-0.05, 0.05)) for label in LABELS}
    shares = [{label: share + jitter[label] * sign for label in LABELS} for share, sign in ((convnext, 1), (coat, -1))]
    found, reason = transformer(with_shares(content, *shares))
    assert found == verdict
    assert reason.startswith("coat_lite_tiny @ 64 px")


def test_one_model_alone_tells_nothing_of_two(content: ReportContent) -> None:
    verdict, reason = transformer(replace(content, models=content.models[:1]))
    assert verdict == UNTESTABLE
    assert "--recipe coat-mini" in reason


def test_models_on_other_cells_are_not_held_against_each_other(content: ReportContent) -> None:
    first, second = content.models
    fewer = replace(content, models=[first, replace(second, predictions=second.predictions.iloc[1:])])
    assert transformer(fewer)[0] == UNTESTABLE


def test_only_what_differs_in_the_mask_alone_tells_of_masking(content: ReportContent) -> None:
    verdict, reason = masked(content)
    assert verdict == UNTESTABLE
    assert "hep2flow ablate data.mask=none,apply" in reason

    first = judged(content.models[0], content.cells, dict.fromkeys(LABELS, 0.9))
    unmasked = judged(content.models[0], content.cells, dict.fromkeys(LABELS, 0.4))
    recipe = {**first.recipe, "name": "bare", "data": {"mask": "none"}}
    unmasked = replace(unmasked, title="bare", family="bare", recipe=recipe)
    assert masked(replace(content, models=[first, unmasked]))[0] == "supported"
    assert masked(replace(content, models=[unmasked, first]))[0] == "supported"
    other = replace(unmasked, recipe={**recipe, "optim": {"lr": 1.0}})
    assert masked(replace(content, models=[first, other]))[0] == UNTESTABLE


@pytest.mark.parametrize(
    ("default", "best", "interval", "verdict"),
    [
        ("none", "apply", [0.01, 0.05], "supported"),
        ("apply", "none", [0.01, 0.05], "refuted"),
        ("apply", "none", [-0.05, -0.01], "supported"),
        ("apply", "none", [-0.01, 0.05], "inside the noise"),
        ("apply", "crop", [0.01, 0.05], UNTESTABLE),
    ],
)
def test_a_sweep_of_the_mask_alone_tells_of_masking(
    content: ReportContent, default: str, best: str, interval: list[float], verdict: str
) -> None:
    sweep = make_sweep()
    assert sweep.judgement is not None
    sweep = replace(
        sweep,
        recipe={**sweep.recipe, "data": {"mask": default}},
        manifest=sweep.manifest | {"best": {"data.mask": best}},
        judgement={**sweep.judgement, "difference": sum(interval) / 2, "ci95": interval},
    )
    assert masked(replace(content, sweeps=[sweep]))[0] == verdict
    mixed = replace(sweep, manifest=sweep.manifest | {"best": {"data.mask": best, "optim.lr": "1.0e-05"}})
    assert masked(replace(content, sweeps=[mixed]))[0] == UNTESTABLE


def with_training_cells(content: ReportContent, order: list[str]) -> ReportContent:
    counts = {"train": {label: 10 + index for index, label in enumerate(order)}}
    return replace(content, split=content.split | {"pattern_counts": content.split["pattern_counts"] | counts})


def test_imbalance_is_judged_by_rank(content: ReportContent) -> None:
    rising = dict(zip(LABELS, (0.4, 0.5, 0.6, 0.7, 0.8, 0.9), strict=True))
    shown = with_shares(content, rising, rising)
    by_f1 = sorted(LABELS, key=lambda label: shown.models[0].metrics["per_class"][label]["f1"])
    verdict, reason = size_not_imbalance(with_training_cells(shown, by_f1))
    assert verdict == "refuted"
    assert "rank correlation of +1.00 (p = 0.0028)" in reason  # 2 of 720 orders
    assert size_not_imbalance(with_training_cells(shown, by_f1[::-1]))[0] == "supported"
    mixed = [by_f1[index] for index in (2, 5, 0, 3, 1, 4)]
    verdict, reason = size_not_imbalance(with_training_cells(shown, mixed))
    assert verdict == "inside the noise"
    assert "p is coarse" in reason


def test_cells_of_one_size_have_no_rank(content: ReportContent) -> None:
    square = replace(content, cells=content.cells.assign(width=78, height=78))
    assert "median area of a cell one of +0.00 (p = 1)" in size_not_imbalance(square)[1]


def test_other_patterns_are_not_judged() -> None:
    labels = ["homogeneous", "speckled", "nucleolar", "centromere", "numem", "golgi"]
    found = claims(make_content(labels=labels))
    assert len(found) == 4
    assert {claim.verdict for claim in found} == {UNTESTABLE}


def test_every_claim_is_on_the_page_and_in_the_summary(content: ReportContent) -> None:
    page, written = render(content), summary(content)
    section = page[page.index('<section id="claims">') : page.index('<section id="published">')]
    found = claims(content)
    for claim in found:
        assert f"<dd><strong>{claim.verdict}</strong>: " in section
        assert f"{claim.words}: {claim.verdict}. " in written


def test_validation_is_in_the_heading_of_the_claims() -> None:
    kwargs: dict[str, Any] = {"subset": "validation"}
    assert "<h2>The paper's claims (validation)</h2>" in render(make_content(**kwargs)).replace("&#39;", "'")
