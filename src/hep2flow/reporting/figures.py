"""The report's figures: pure functions from numbers to matplotlib figures."""

import io
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, PercentFormatter
from PIL import Image

from hep2flow.cells import decode_png

INK = "#1f2328"
PAGE = "#fefefe"  # the page's background, behind text that lines cross
GRID = "#8b949e"
CELL = "#00508f"
SERIES = ("#2a82c9", "#d9660f", "#1a9370", "#b8619b", "#8a7a1d", "#6f6fd1")
HATCHES = ("", "////", "\\\\\\\\", "xxxx", "----", "||||")
MARKERS = ("o", "s", "^", "D", "v", "P")

WIDTH = 4.8  # inches: at 9.5 points still readable on a phone
THUMBNAIL = 96  # pixels a side, at most
Metrics = Mapping[str, Mapping[str, Any]]  # of an evaluation, by the model's name
SUBSET_NAMES = {"train": "training", "val": "validation", "test": "test"}

# Any: matplotlib types the keys as one Literal of every setting of its newest version.
STYLE: Any = {
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.titlecolor", "xtick.labelcolor", "ytick.labelcolor"), INK),
    **dict.fromkeys(("axes.edgecolor", "grid.color", "xtick.color", "ytick.color"), GRID),
    **dict.fromkeys(("font.size", "axes.titlesize"), 9.5),
    "svg.fonttype": "none",
    "svg.hashsalt": "hep2flow",
    "image.composite_image": False,  # pictures of one plot stay as they are, each in its own pixels
    "text.parse_math": False,  # labels are data: a dollar sign is a dollar sign
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.facecolor": "none",
    "grid.alpha": 0.3,
    "grid.linewidth": 0.6,
    "hatch.linewidth": 0.6,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
}


def display_name(label: str, width: int = 22) -> str:
    """A label with spaces, shortened to ``width`` characters."""
    return shorten(label.replace("_", " "), width)


def shorten(text: str, width: int) -> str:
    """A text of at most ``width`` characters."""
    return text if len(text) <= width else text[: width - 1] + "…"


@matplotlib.rc_context(STYLE)
def score_intervals(
    models: Metrics, majority_share: float, seeds: Mapping[str, Sequence[Any]] = MappingProxyType({}), title: str = ""
) -> Figure:
    """ACA, MCA and macro F1 of each model with their 95 % intervals.

    Args:
        models: Name -> aca, mca, macro_f1 and their ci95; means over seeds where there are several.
        majority_share: The largest class's share, drawn as a line.
        seeds: Name -> aca, mca, macro_f1 of each seed, drawn as small points.
        title: Above the figure; may be empty.
    """
    rows = {"ACA": "aca", "MCA": "mca", "macro F1": "macro_f1"}
    figure, axes = single_plot(title, height=1.25 + 0.28 * len(rows) * len(models) + 0.17 * len(models))
    for i, (name, metrics) in enumerate(models.items()):
        marker, color = MARKERS[i % len(MARKERS)], SERIES[i % len(SERIES)]
        for j, key in enumerate(rows.values()):
            y = j + (i - (len(models) - 1) / 2) * 0.8 / max(len(models), 2)
            value, (low, high) = metrics[key], metrics["ci95"][key]
            spread, label = [[100 * (value - low)], [100 * (high - value)]], wrapped(name) if j == 0 else None
            axes.errorbar(100 * value, y, xerr=spread, fmt=marker, color=color, capsize=3, label=label)
            each = [100 * scores[key] for scores in seeds.get(name, [])]
            axes.plot(each, [y] * len(each), ".", color=INK, markersize=3, alpha=0.7, zorder=3)
            annotate_above(axes, 100 * value, y, f"{100 * value:.1f}", 4)
    label = "ACA of always answering the largest class"
    axes.axvline(100 * majority_share, color=INK, linestyle=":", linewidth=1.2, label=label)
    axes.set_yticks(range(len(rows)), list(rows))
    axes.grid(visible=False, axis="y")
    xlabel = f"%, with 95 % interval{'; small points: each seed' if seeds else ''}"
    axes.set(xlim=(0, 100), ylim=(len(rows) - 0.4, -0.6), xlabel=xlabel)
    return with_legend(figure)


@matplotlib.rc_context(STYLE)
def confusion_matrix(metrics: Mapping[str, Any], title: str) -> Figure:
    """Confusion matrix: rows are the truth; counts, and shares of the row in percent."""
    counts = np.array(metrics["confusion"])
    labels = [display_name(label) for label in metrics["labels"]]
    classes = len(labels)
    support = counts.sum(axis=1)
    share = counts / np.maximum(support, 1)[:, None]
    figure, axes = single_plot(title, width=max(WIDTH, 0.5 * classes + 2), height=max(4.4, 0.45 * classes + 1.8))
    for (row, column), count in np.ndenumerate(counts):
        fraction = float(share[row, column])
        # Opacity instead of a colour map: an empty cell is the page, light or dark.
        axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor=CELL, alpha=fraction, linewidth=0))
        text: dict[str, Any] = {"ha": "center", "color": "#ffffff" if fraction > 0.65 else INK}
        if count and classes > 10:
            axes.text(column, row, str(count), va="center", size=7, **text)
        elif count:
            axes.text(column, row + 0.02, str(count), va="bottom", weight="bold", **text)
            axes.text(column, row + 0.08, f"{100 * fraction:.0f} %", va="top", size=8, **text)
    edges = np.arange(classes + 1) - 0.5
    for lines in (axes.hlines, axes.vlines):
        lines(edges, -0.5, classes - 0.5, color=GRID, linewidth=0.6, alpha=0.6)
    axes.set_xticks(range(classes), labels, rotation=35, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(classes), [f"{label} ({n})" for label, n in zip(labels, support, strict=True)])
    axes.set(xlim=(-0.5, classes - 0.5), ylim=(classes - 0.5, -0.5), xlabel="predicted", ylabel="truth (cells)")
    axes.grid(visible=False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure


@matplotlib.rc_context(STYLE)
def learning_curves(history: Sequence[Mapping[str, Any]], title: str) -> Figure:
    """Training and validation loss, and validation accuracy, by epoch; the selected epoch is marked."""
    table = pd.DataFrame(list(history)).apply(pd.to_numeric)
    figure = new_figure(title, WIDTH, 4.4)
    upper, lower = figure.subplots(2, 1, sharex=True)
    upper.plot(table["epoch"], table["train_loss"], color=SERIES[0], linestyle="--", label="training loss")
    validated = table.dropna(subset=["val_loss"])  # not every epoch is
    upper.plot(validated["epoch"], validated["val_loss"], color=SERIES[1], label="validation loss")
    upper.set_ylabel("loss")
    lower.plot(validated["epoch"], 100 * validated["val_accuracy"], color=SERIES[1], label="validation accuracy")
    lower.set(xlabel="epoch", ylabel="accuracy, %")
    lower.xaxis.set_major_locator(MaxNLocator(integer=True))
    # Each epoch that was the best so far is marked in the history; the last of them is the selected one.
    for best in table.loc[table["best"] == 1, "epoch"][-1:]:
        for axes in (upper, lower):
            axes.axvline(best, color=INK, linewidth=1.2, linestyle=":")
        value = 100 * table.loc[table["epoch"] == best, "val_accuracy"].iloc[0]
        lower.plot(best, value, marker="o", color=INK, linestyle="none", label=f"selected: epoch {best}, {value:.1f} %")
    upper.legend(loc="best")
    lower.legend(loc="best")
    return figure


@matplotlib.rc_context(STYLE)
def class_distribution(pattern_counts: Mapping[str, Mapping[str, int]], title: str = "") -> Figure:
    """Cells per pattern (``pattern_counts``: subset -> pattern -> cells) in each subset (the paper's Figure 2)."""
    patterns = sorted({pattern for counts in pattern_counts.values() for pattern in counts})
    series = {}
    for subset, name in SUBSET_NAMES.items():
        counts = [pattern_counts.get(subset, {}).get(pattern, 0) for pattern in patterns]
        if sum(counts):
            series[f"{name} ({sum(counts)})"] = counts
    figure, axes = single_plot(title, height=1.3 + 0.22 * len(patterns) * (len(series) + 0.6))
    _grouped_bars(axes, patterns, series)
    axes.set_xlabel("cells")
    return with_legend(figure)


@matplotlib.rc_context(STYLE)
def per_class_f1(models: Metrics, title: str = "") -> Figure:
    """F1 per pattern, one bar per model; a pattern without an F1 has no bar."""
    labels = list(next(iter(models.values()))["labels"])
    figure, axes = single_plot(title, height=1.2 + 0.22 * len(labels) * (len(models) + 0.6) + 0.17 * len(models))
    percent = {}
    for name, metrics in models.items():
        f1 = [metrics["per_class"].get(label, {}).get("f1") for label in labels]
        percent[wrapped(name)] = [None if value is None else 100 * value for value in f1]
    _grouped_bars(axes, labels, percent, "{:.1f}")
    axes.set(xlim=(0, 108), xticks=range(0, 101, 20), xlabel="F1, %")
    return with_legend(figure)


def _grouped_bars(
    axes: Axes, labels: Sequence[str], series: Mapping[str, Sequence[float | None]], form: str = "{}"
) -> None:
    """Horizontal bars, one group for each label, with their values; None has no bar and a dash."""
    thickness = 0.84 / max(len(series), 1)
    for i, (name, values) in enumerate(series.items()):
        places = np.arange(len(labels)) - 0.42 + (i + 0.5) * thickness
        bars = axes.barh(places, [value or 0 for value in values], thickness * 0.92, label=name, **bar_fill(i))
        axes.bar_label(bars, ["–" if value is None else form.format(value) for value in values], padding=2, size=8)
    axes.set_yticks(range(len(labels)), [display_name(label) for label in labels])
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")


@matplotlib.rc_context(STYLE)
def reliability_diagram(models: Metrics, title: str = "") -> Figure:
    """Accuracy against predicted probability, in the bins of the expected calibration error; area shows cells."""
    figure, axes = single_plot(title, height=4.4)
    axes.plot([0, 1], [0, 1], color=INK, linestyle=":", linewidth=1.2, label="perfectly calibrated")
    for i, (name, metrics) in enumerate(models.items()):
        bins = [entry for entry in metrics["reliability"] if entry["n"]]
        x, y = [entry["confidence"] for entry in bins], [entry["accuracy"] for entry in bins]
        color = SERIES[i % len(SERIES)]
        axes.plot(x, y, color=color, marker=MARKERS[i % len(MARKERS)], linewidth=0.8, markersize=4, label=wrapped(name))
        axes.scatter(x, y, [400 * entry["n"] / metrics["n"] for entry in bins], color=color, alpha=0.35, linewidth=0)
    axes.set(xlim=(0, 1.03), ylim=(-0.03, 1.03), aspect="equal")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1, symbol=""))
    axes.set(xlabel="probability of the predicted pattern, %", ylabel="accuracy, %")
    return with_legend(figure)


@matplotlib.rc_context(STYLE)
def reject_curve(models: Metrics, title: str = "") -> Figure:
    """Accuracy on the cells answered over their share, the surest first, from the ``reject_curve`` of each metrics."""
    figure, axes = single_plot(title, height=3.8)
    for i, (name, metrics) in enumerate(models.items()):
        x, y = ([100 * point[key] for point in metrics["reject_curve"]] for key in ("coverage", "accuracy"))
        marker, color = MARKERS[i % len(MARKERS)], SERIES[i % len(SERIES)]
        axes.plot(x, y, color=color, marker=marker, linewidth=1.2, markersize=4, label=wrapped(name))
    axes.set(xlim=(0, 103), xlabel="cells answered, the surest first, %", ylabel="accuracy on them, %")
    axes.set_ylim(top=101)
    return with_legend(figure)


@matplotlib.rc_context(STYLE)
def pattern_examples(examples: Mapping[str, Sequence[tuple[bytes, bytes]]], bits: int = 8, title: str = "") -> Figure:
    """A few cells of each pattern, original and masked PNG, before masking (the paper's Figure 1); ``bits``: of a pixel."""
    rows = {pattern: [original for original, _ in pairs] for pattern, pairs in examples.items()}
    return _gallery(rows, bits, title, headings=[])


@matplotlib.rc_context(STYLE)
def masking(examples: Mapping[str, Sequence[tuple[bytes, bytes]]], bits: int = 8, title: str = "") -> Figure:
    """One cell of each pattern before and after masking (the paper's Figure 5); arguments as in pattern_examples."""
    rows = {pattern: list(pairs[0]) for pattern, pairs in examples.items() if pairs}
    return _gallery(rows, bits, title, headings=["original", "masked"])


def _gallery(rows: Mapping[str, Sequence[bytes]], bits: int, title: str, headings: Sequence[str]) -> Figure:
    columns = max(len(images) for images in rows.values())
    side = min(0.85, (WIDTH - 1.4) / columns)
    figure = new_figure(title, 1.4 + side * columns, side * len(rows) + 0.25)
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for line, (pattern, images) in zip(grid, rows.items(), strict=True):
        for axes in line:
            axes.set_axis_off()
        for axes, image in zip(line, images, strict=False):
            axes.imshow(thumbnail(image, bits), cmap="gray", vmin=0, vmax=255, interpolation="none")
        line[0].text(-0.12, 0.5, display_name(pattern), transform=line[0].transAxes, ha="right", va="center")
    for axes, heading in zip(grid[0], headings, strict=False):
        axes.set_title(heading, loc="center", size=8.5)
    return figure


def thumbnail(png: bytes, bits: int) -> npt.NDArray[np.uint8]:
    """An 8-bit image of at most THUMBNAIL pixels a side, its brightness as stored."""
    pixels = decode_png(png)
    if pixels.dtype == np.uint16:
        pixels = (np.minimum(pixels / (2**bits - 1), 1) * 255).astype(np.uint8)
    image = Image.fromarray(pixels)
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    return np.asarray(image)


def save(figure: Figure, folder: Path, name: str, document: str | None = None) -> None:
    """Write ``name.svg`` and ``name.png`` on white; equal figures give equal SVG bytes.

    ``document`` is what :func:`to_svg` returned for the figure, where it was called already: drawing is slow.
    """
    folder.mkdir(parents=True, exist_ok=True)
    document = document or to_svg(figure)
    start = document.index(">", document.index("<svg")) + 1
    on_white = f'{document[:start]}<rect width="100%" height="100%" fill="white"/>{document[start:]}'
    (folder / f"{name}.svg").write_text(on_white, encoding="utf-8")
    figure.savefig(folder / f"{name}.png", dpi=150, facecolor="white")


@matplotlib.rc_context(STYLE)
def to_svg(figure: Figure) -> str:
    """The figure as an SVG document on no background, in INK."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", facecolor="none", metadata={"Date": None, "Creator": "hep2flow"})
    return buffer.getvalue()


def single_plot(title: str = "", *, width: float = WIDTH, height: float) -> tuple[Figure, Axes]:
    """A figure of one plot, so many inches wide, and high below its title."""
    figure = new_figure(title, width, height + 0.17 * len(wrapped(title, width).splitlines()))
    return figure, figure.subplots()


def new_figure(title: str, width: float, height: float) -> Figure:
    """An empty figure of so many inches, with the title above it, where there is one."""
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="none")
    if title:
        figure.suptitle(wrapped(title, width), x=0.02, ha="left", size=9.5)
    return figure


def wrapped(text: str, width: float = WIDTH) -> str:
    """Text broken into lines of at most ``width`` inches."""
    return "\n".join(textwrap.wrap(text, int(54 * width / WIDTH)))


def bar_fill(index: int) -> dict[str, Any]:
    """Face and hatch of one series of bars."""
    color, hatch = SERIES[index % len(SERIES)], HATCHES[index % len(HATCHES)]
    return {"color": color, "hatch": hatch, "edgecolor": "#ffffff", "linewidth": 0}


def annotate_above(axes: Axes, x: float, y: float, text: str, offset: float = 6) -> None:
    """A small text so many points above a place of the plot."""
    axes.annotate(text, (x, y), xytext=(0, offset), textcoords="offset points", ha="center", size=8)


def with_legend(figure: Figure) -> Figure:
    """The figure, with a line for each series below its plot."""
    figure.legend(loc="outside lower left", ncols=1, fontsize=8.5)
    return figure
