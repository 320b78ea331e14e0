from __future__ import annotations

import re
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import pytest

from hep2flow.evaluation.metrics import evaluate_predictions
from hep2flow.reporting.model_card import model_card
from hep2flow.reporting.page import inline_svg, render, summary, write
from hep2flow.reporting.report_content import ReportContent
from hep2flow.reporting.report_tables import seeds, trainings
from hep2flow.reporting.sentences import verdict, warnings

from .content import LABELS, make_content, make_content_of_seeds

PAPER = {"paper_model": True, "profile": "paper"}
CASES: dict[str, tuple[dict[str, Any], str]] = {
    "synthetic": ({"synthetic": True}, "Synthetic data: generated cells, says nothing about real ones"),
    "validation": ({"subset": "validation", **PAPER}, "chosen on these cells: optimistic"),
    "selected": ({"selected_on_test": True, **PAPER}, "elected on the test set: optimistic, not a test result"),
    "laptop": ({"synthetic": True}, "Stand-ins, not the paper's models: small networks for a laptop (convnext_atto"),
    "other network": ({"profile": "paper"}, "Not one of the paper's two networks"),
    "shared specimens": ({"shared_specimens": 14}, "14 specimens have cells in both training and validation"),
    "unknown specimens": ({"shared_specimens": None}, "Leakage: specimens are unknown"),
}


@cache
def rendered(case: str) -> str:
    return render(make_content(**CASES[case][0]))


class Text(HTMLParser):
    """What a reader reads: text outside of script and style; and what the page would load."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text = ""
        self.loads: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.silent = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.silent = tag in ("script", "style")
        for name, value in attrs:
            if name == "id" and value:
                self.ids.append(value)
            if name in ("src", "srcset", "href", "xlink:href", "data", "poster") and value:
                if value.startswith("#"):
                    self.references.append(value[1:])
                elif not value.startswith("data:"):
                    self.loads.append(value)

    def handle_endtag(self, tag: str) -> None:
        self.silent = False

    def handle_data(self, data: str) -> None:
        if not self.silent:
            self.text += data.replace("\N{NO-BREAK SPACE}", " ")


@pytest.fixture(scope="module")
def plain() -> ReportContent:
    """The paper's models on the real data set's official test set, specimens kept apart: nothing to warn of."""
    return make_content(shared_specimens=0, **PAPER)


@pytest.fixture(scope="module")
def plain_page(plain: ReportContent) -> str:
    return render(plain)


@pytest.mark.parametrize("case", CASES)
def test_reservations_stand_in_the_summary_and_the_card(case: str) -> None:
    arguments, words = CASES[case]
    content = make_content(**arguments)
    written = summary(content)
    assert words in written[: written.index("ACA")]
    convnext = next(family for family in content.families if family.recipe_name == "convnext-b")
    assert words in model_card(content, convnext)


def test_selection_on_the_test_set_stands_in_every_figure_and_in_full(tmp_path: Path) -> None:
    words = "selected on the test set: optimistic, not a test result"
    for selected in (True, False):
        folder = tmp_path / str(selected)
        write(make_content(selected_on_test=selected), folder)
        written = sorted([*folder.glob("figures/*.svg"), *folder.glob("*.md"), folder / "index.html"])
        assert len(written) > 10
        for file in written:
            text = " ".join(re.sub(r"<[^>]+>", " ", file.read_text(encoding="utf-8")).split()).lower()
            assert (words in text) is selected, file.name


@pytest.mark.parametrize("case", ["synthetic", "validation", "selected", "laptop"])
def test_reservations_stand_before_the_first_number_of_the_page(case: str) -> None:
    text = Text(rendered(case)).text
    assert CASES[case][1] in text[: text.index("ACA")]


def test_nothing_is_warned_of_where_nothing_is_wrong(plain_page: str) -> None:
    text = Text(plain_page).text
    for words in ("Synthetic", "validation)", "elected on the test set", "tand-in", "optimistic", "not comparable"):
        assert words not in text
    assert "no specimen has cells in both training and validation" in text
    assert "Research use only, not for clinical use." in text[: text.index("ACA")]


def test_the_page_holds_the_numbers(plain: ReportContent, plain_page: str) -> None:
    text = Text(plain_page).text
    for model in plain.models:
        metrics = model.metrics
        for key in ("aca", "mca", "macro_f1"):
            low, high = metrics["ci95"][key]
            assert f"{100 * metrics[key]:.1f} % ({100 * low:.1f} to {100 * high:.1f})" in text
        assert f"{100 * metrics['weighted_f1']:.1f} %" in text
        for entry in metrics["per_class"].values():
            assert f"{100 * entry['f1']:.1f}" in text
        assert model.title in text
    for published in ("73.9", "75.6", "68.7", "81.2"):
        assert published in text


def test_the_best_model_comes_first(plain: ReportContent, plain_page: str) -> None:
    best, other = sorted(plain.models, key=lambda model: -model.metrics["aca"])
    verdict = Text(plain_page).text.split("Evidence")[1]
    assert verdict.index(best.title) < verdict.index(other.title)


def test_validation_is_in_every_heading_of_numbers() -> None:
    page = rendered("validation")
    for heading in ("Verdict", "Evidence", "Confusion", "By specimen", "By intensity"):
        assert re.search(rf"<h[23]>{heading} \(validation\)</h[23]>", page)
    assert "validation</title>" in page
    for caption in re.findall(r"<figcaption><strong>(.*?)</strong>", page):
        assert "validation" in caption or caption in (
            "Cells per pattern and subset (compare the paper&#39;s Figure 2).",
            "Examples of the patterns (compare the paper&#39;s Figure 1).",
            "Masking (compare the paper&#39;s Figure 5).",
        )


def test_the_network_really_trained_is_in_every_name_of_a_model() -> None:
    for model in make_content().models:
        name = replace(model, title="my model").name
        assert model.metrics["network"] in name
        assert "stand-in" in name


def test_other_data_are_not_compared_with_the_paper() -> None:
    text = Text(rendered("synthetic")).text
    assert "other data, not comparable" in text
    assert "Nosaka" not in text


def test_the_page_loads_nothing(plain_page: str) -> None:
    page = Text(plain_page)
    assert page.loads == []
    assert not re.search(r"url\((?!#)", plain_page)
    assert "@import" not in plain_page
    assert not re.search(r"\b(fetch|XMLHttpRequest|import)\s*\(", plain_page)


def test_ids_are_unique_and_every_reference_is_answered(plain_page: str) -> None:
    page = Text(plain_page)
    assert len(page.ids) == len(set(page.ids))
    referred = set(page.references) | set(re.findall(r"url\(#([^)]+)\)", plain_page))
    assert referred <= set(page.ids)


def test_odd_labels_are_escaped() -> None:
    labels = ["<script>alert(1)</script>", "a & b", 'quote"d', "$x^2$", "|pipe|", "ünïcode"]
    content = make_content(labels=labels)
    page = render(content)
    assert "<script>alert" not in page
    assert page.count("<script>") == 1
    text = Text(page).text
    for words in ("a & b", 'quote"d', "$x^2$", "ünïcode"):
        assert words in text
    card = model_card(content, content.families[0])
    assert "<script>" not in card
    assert "\\|pipe\\|" in card


def test_write_leaves_the_page_its_figures_and_a_summary(plain: ReportContent, tmp_path: Path) -> None:
    write(plain, tmp_path)
    assert (tmp_path / "index.html").stat().st_size < 2_000_000
    names = {path.stem for path in (tmp_path / "figures").glob("*.svg")}
    assert {"confusion-convnext-b", "confusion-coat-mini", "learning-coat-mini", "f1", "masking"} <= names
    assert {path.name for path in tmp_path.glob("*.md")} == {
        "summary.md",
        "model-card-convnext-b.md",
        "model-card-coat-mini.md",
    }
    assert names == {path.stem for path in (tmp_path / "figures").glob("*.png")}
    assert f"{100 * plain.models[0].metrics['aca']:.1f} %" in (tmp_path / "summary.md").read_text(encoding="utf-8")


def test_equal_content_gives_an_equal_page(plain: ReportContent, plain_page: str) -> None:
    assert render(plain) == plain_page


def test_what_is_unknown_is_a_dash_not_an_error() -> None:
    content = make_content(specimen_vote_accuracy=None, by_specimen=[], by_intensity={}, tta_off=None)
    bare = replace(
        content,
        dataset=content.dataset | {"mask": None, "name": "i3a", "notes": []},
        models=[replace(content.models[0], history=[])],
        cells=content.cells.assign(specimen_id=None, intensity=None),
        examples={},
        provenance={},
    )
    text = Text(render(bare)).text
    assert "Specimens are unknown in this data set." in text
    assert "The images were not masked." in text
    assert "Learning curves" not in text
    assert "Rodrigues 2020" in text


def test_models_on_other_cells_are_not_compared(plain: ReportContent) -> None:
    best, other = plain.ranked
    fewer = replace(plain, models=[best, replace(other, predictions=other.predictions.iloc[1:])])
    assert "evaluated on other cells: the two are not compared" in " ".join(verdict(fewer))


def with_predictions(content: ReportContent, right: tuple[int, int]) -> ReportContent:
    """Both models right on the first so many of 734 cells and wrong on the others."""
    models = []
    for model, n in zip(content.models, right, strict=True):
        table = model.predictions.copy()
        order = np.random.default_rng(0).permutation(len(table))  # hits spread evenly over the patterns
        wrong = table["truth"].map(lambda label: LABELS[LABELS.index(label) - 1])
        table["predicted"] = table["truth"].where(order < n, wrong)
        for label in LABELS:
            table[f"p_{label}"] = (table["predicted"] == label).astype(float)
        metrics = model.metrics | evaluate_predictions(table, content.cells.assign(specimen_id=None), LABELS)
        models.append(replace(model, predictions=table, metrics=metrics))
    return replace(content, models=models, cells=content.cells.assign(specimen_id=None))


@pytest.mark.parametrize(
    ("right", "words"),
    [
        ((400, 600), "is outside the noise: p = 0.0001, interval ["),
        ((540, 560), "is outside the noise: p = 0.0001, interval ["),
        ((540, 543), "is inside the noise: p = 0.25, interval ["),  # three cells gained: two of eight ways
        ((540, 540), "is inside the noise: p = 1, interval [0.0, 0.0]"),
        ((100, 90), "that is not excluded by the interval"),
        ((545, 545), "both lie inside the interval"),
        ((700, 700), "is far above the published results on this test set"),
    ],
)
def test_the_verdict_is_judged_from_the_intervals(plain: ReportContent, right: tuple[int, int], words: str) -> None:
    content = with_predictions(plain, right)
    assert words in " ".join([*warnings(content), *verdict(content)])


def test_a_report_without_models_is_refused(plain: ReportContent) -> None:
    with pytest.raises(ValueError, match="at least one model"):
        ReportContent(plain.run_id, plain.dataset, plain.split, [], plain.cells, {}, {})


def test_inline_svg_takes_the_text_colour_of_the_page() -> None:
    svg = '<?xml version="1.0"?><svg><g id="a" style="fill: #1f2328"/><use xlink:href="#a" clip-path="url(#a)"/></svg>'
    assert inline_svg(svg, "f") == (
        '<svg><g id="f-a" style="fill: currentColor"/><use xlink:href="#f-a" clip-path="url(#f-a)"/></svg>'
    )


def test_the_card_names_use_data_metrics_and_limits(plain: ReportContent) -> None:
    card = model_card(plain, plain.families[0])
    for heading in ("## Intended use", "## Data", "## Metrics", "## Limits"):
        assert heading in card
    assert "Research use only, not for clinical use." in card
    assert plain.dataset["digest"] in card
    assert ", ".join(label.replace("_", " ") for label in LABELS) in card


@pytest.fixture(scope="module")
def of_seeds() -> ReportContent:
    return make_content_of_seeds(4, shared_specimens=0)


def test_several_seeds_are_told_as_mean_and_deviation_and_each_is_kept(of_seeds: ReportContent) -> None:
    pages = [Text(render(of_seeds)).text, summary(of_seeds)]
    cards = {family.recipe_name: model_card(of_seeds, family) for family in of_seeds.families}
    assert [family.seeds for family in of_seeds.families] == [[0, 1, 2, 3]] * 2
    assert set(cards) == {"convnext-b", "coat-mini"}
    for family in of_seeds.families:
        for key in ("aca", "mca", "macro_f1"):
            values = [model.metrics[key] for model in family.models]
            written = f"{100 * mean(values):.1f} % ± {100 * stdev(values):.1f} ("
            for text in (*pages, cards[family.recipe_name]):
                assert written in text
        for model in family.models:
            for text in (*pages, cards[family.recipe_name]):
                assert re.search(rf"\), seed {model.metrics['seed']}\b\D+{100 * model.metrics['aca']:.1f}\b", text)
    aca = [model.metrics["aca"] for model in of_seeds.families[0].models]
    told = f"ACA, mean of 4 seeds with a standard deviation of {100 * stdev(aca):.1f} points"
    assert all(told in text for text in pages)


def test_one_training_stands_for_its_seeds_where_one_can_be_shown(of_seeds: ReportContent, tmp_path: Path) -> None:
    write(of_seeds, tmp_path)
    drawn = {path.stem for path in (tmp_path / "figures").glob("*.svg")}
    for family in of_seeds.families:
        # Of four, the second by ACA.
        median = sorted(family.models, key=lambda model: model.metrics["aca"])[1].metrics["seed"]
        assert family.representative.metrics["seed"] == median
        assert f"seed {median} (median ACA of 4 seeds)" in family.representative.name
        ours = [
            name
            for name in drawn
            if name.startswith((f"confusion-{family.recipe_name}", f"learning-{family.recipe_name}"))
        ]
        assert sorted(ours) == [f"{kind}-{family.recipe_name}-seed-{median}" for kind in ("confusion", "learning")]
        matrix = (tmp_path / "figures" / f"confusion-{family.recipe_name}-seed-{median}.svg").read_text(
            encoding="utf-8"
        )
        assert f"seed {median}" in " ".join(re.sub(r"<[^>]+>", " ", matrix).split())


def test_a_model_trained_once_has_no_deviation_and_no_table_of_seeds(plain: ReportContent, plain_page: str) -> None:
    text = Text(plain_page).text
    for words in ("±", "Every seed", "standard deviation", "median ACA"):
        assert words not in text
    assert seeds(plain.families).rows == []


def test_recipes_that_differ_in_more_than_the_seed_are_not_averaged(of_seeds: ReportContent) -> None:
    first, second, *_ = of_seeds.models
    other = {**second.recipe, "optim": {**second.recipe["optim"], "lr": 1.0}}
    content = replace(of_seeds, models=[first, replace(second, recipe=other)])
    assert [family.seeds for family in content.families] in ([[0], [1]], [[1], [0]])


def test_families_are_compared_by_the_means_over_their_seeds(of_seeds: ReportContent) -> None:
    best, other = of_seeds.families
    lead = f"Its lead of {100 * (best.scores['aca'] - other.scores['aca']):.1f} points over {other.name}"
    told = " ".join(verdict(of_seeds))
    assert lead in told
    assert ") is outside the noise: p = 0.0" in told
    # The same predictions on both sides: no difference, whatever is drawn.
    twins = [
        replace(model, metrics=twin.metrics, predictions=twin.predictions)
        for model, twin in zip(other.models, best.models, strict=True)
    ]
    told = " ".join(verdict(replace(of_seeds, models=[*best.models, *twins])))
    assert "is inside the noise: p = 1, interval [0.0, 0.0]" in told


def test_the_provenance_tells_what_each_training_began_with(plain: ReportContent, plain_page: str) -> None:
    laptop = make_content()
    rows = [[entry.text for entry in row] for content in (plain, laptop) for row in trainings(content.models).rows]
    scratch = "random, trained from scratch"
    assert rows == [
        ["convnext-b (convnext_base)", "0", "paper", "timm/convnext_base@abc", "head.weight"],
        ["coat-mini (coat_mini)", "0", "paper", "timm/coat_mini@abc", "head.weight"],
        ["convnext-b (convnext_atto)", "0", "paper", scratch, "–"],
        ["coat-mini (coat_lite_tiny)", "0", "paper", scratch, "–"],
    ]
    provenance = plain_page[plain_page.index('<section id="provenance">') :]
    assert "timm/coat_mini@abc" in provenance
    assert "head.weight" in provenance
