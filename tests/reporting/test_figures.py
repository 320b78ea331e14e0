from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hep2flow.cells import encode_png
from hep2flow.reporting import figures
from hep2flow.reporting.report_content import ReportContent

from .content import LABELS, make_content

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def content() -> ReportContent:
    return make_content()


def texts(svg: str) -> list[str]:
    root = ElementTree.fromstring(svg)  # noqa: S314  our own figure
    return ["".join(element.itertext()).strip() for element in root.iter(f"{SVG}text")]


def test_confusion_matrix_shows_counts_and_row_percentages(content: ReportContent) -> None:
    metrics = content.models[0].metrics
    shown = texts(figures.to_svg(figures.confusion_matrix(metrics, "a model")))
    for label, row in zip(LABELS, metrics["confusion"], strict=True):
        assert f"{label.replace('_', ' ')} ({sum(row)})" in shown
        for count in row:
            if count:
                assert str(count) in shown
                assert f"{100 * count / sum(row):.0f} %" in shown
    assert "a model" in shown


def test_a_matrix_of_many_classes_and_empty_rows_is_drawn() -> None:
    classes = 24
    confusion = np.diag(np.arange(classes))
    metrics = {"confusion": confusion.tolist(), "labels": [f"pattern_number_{i}" for i in range(classes)]}
    assert "23" in texts(figures.to_svg(figures.confusion_matrix(metrics, "many")))


def test_the_selected_epoch_is_marked(content: ReportContent) -> None:
    history = content.models[0].history
    best = max(history, key=lambda entry: entry["val_accuracy"])
    assert sum(entry["best"] for entry in history) > 1
    shown = texts(figures.to_svg(figures.learning_curves(history, "a model")))
    assert sum(text.startswith("selected: ") for text in shown) == 1
    assert f"selected: epoch {best['epoch']}, {100 * best['val_accuracy']:.1f} %" in shown


def test_curves_are_joined_over_epochs_that_were_not_validated(content: ReportContent) -> None:
    missing = {"val_loss": None, "val_accuracy": None, "best": False}
    history = [entry | (missing if entry["epoch"] % 2 else {}) for entry in content.models[0].history]
    figure = figures.learning_curves(history, "a model")
    curves = {line.get_label(): line for axes in figure.axes for line in axes.get_lines()}
    for label in ("validation loss", "validation accuracy"):
        assert not np.isnan(curves[label].get_ydata()).any()
        assert len(curves[label].get_xdata()) == len(history) // 2


def test_learning_curves_without_validation_loss(content: ReportContent) -> None:
    history = [entry | {"val_loss": None} for entry in content.models[0].history]
    assert "epoch" in texts(figures.to_svg(figures.learning_curves(history, "a model")))


def test_distribution_shows_every_count(content: ReportContent) -> None:
    counts = content.split["pattern_counts"]
    shown = texts(figures.to_svg(figures.class_distribution(counts)))
    for subset in counts.values():
        assert {str(n) for n in subset.values()} <= set(shown)


def test_equal_figures_have_equal_svg_and_no_date(content: ReportContent, tmp_path: Path) -> None:
    for folder in ("one", "two"):
        figures.save(figures.per_class_f1({m.name: m.metrics for m in content.models}), tmp_path / folder, "f1")
    first, second = ((tmp_path / folder / "f1.svg").read_bytes() for folder in ("one", "two"))
    assert first == second
    assert b"dc:date" not in first
    with Image.open(tmp_path / "one" / "f1.png") as png:
        assert png.width > 500


def test_dollars_in_labels_are_dollars(content: ReportContent) -> None:
    counts = {"train": {"$x^2$": 3, "<b>&": 2}}
    assert {"$x^2$", "<b>&"} <= set(texts(figures.to_svg(figures.class_distribution(counts))))


@pytest.mark.parametrize("bits", [12, 16])
def test_a_16_bit_image_is_shown_by_its_significant_bits(bits: int) -> None:
    white = encode_png(np.full((40, 30), 2**bits - 1, dtype=np.uint16))
    assert figures.thumbnail(white, bits).min() == 255


def test_patterns_with_different_numbers_of_examples(content: ReportContent) -> None:
    pairs = content.examples["nucleolar"]
    shown = texts(figures.to_svg(figures.pattern_examples({"one": pairs[:1], "three": pairs[:3], "none": []})))
    assert {"one", "three"} <= set(shown)
    assert {"original", "masked"} <= set(texts(figures.to_svg(figures.masking({"one": pairs, "none": []}))))


def test_scores_show_each_seed_as_a_point(content: ReportContent) -> None:
    scores = {model.name: model.metrics for model in content.models}
    each = {
        content.models[0].name: [{"aca": 0.5, "mca": 0.6, "macro_f1": 0.7}, {"aca": 0.8, "mca": 0.9, "macro_f1": 0.4}]
    }
    axes = figures.score_intervals(scores, 0.2, each).axes[0]
    points = [list(line.get_xdata()) for line in axes.lines if line.get_marker() == "." and len(line.get_xdata())]
    assert points == [pytest.approx([50, 80]), pytest.approx([60, 90]), pytest.approx([70, 40])]
    assert "each seed" in axes.get_xlabel()
    assert "each seed" not in figures.score_intervals(scores, 0.2).axes[0].get_xlabel()
