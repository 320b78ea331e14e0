"""A sweep's figures, in the style of the report's others.

optuna.visualization is not used: the image that writes the report has no Optuna, and its plots show neither failed and
pruned trials nor the recipe's own values. At a phone's width its legend of all trials leaves no room for the curves, and
the vertical axes of its parallel coordinates write key names, ticks and categories over each other.
"""

import re
import textwrap
from collections.abc import Mapping
from typing import Any, NamedTuple

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from hep2flow.reporting.figures import (
    GRID,
    INK,
    MARKERS,
    PAGE,
    SERIES,
    STYLE,
    WIDTH,
    annotate_above,
    bar_fill,
    new_figure,
    shorten,
    single_plot,
    with_legend,
)
from hep2flow.reporting.report_content import SweepResult
from hep2flow.search.space import yaml_text

OWN_VALUES = "the recipe's own values"
MAX_KEYS = 8  # of the parallel coordinates
NOT_TRIED = -0.12  # position of trials that did not try a key, left of its axis
MAX_POINTS = 60  # of a drawn curve, about: a page of 200 trials stays small
STATUSES = {  # how a trial ended -> marker, colour, words
    "finished": ("o", SERIES[0], "finished"),
    "stopped": ("v", GRID, "stopped early"),
    "failed": ("x", SERIES[3], "failed"),
    "running": ("d", SERIES[4], "interrupted"),
}


@matplotlib.rc_context(STYLE)
def optimisation_history(sweep: SweepResult) -> Figure:
    """The score of each trial in order, and the best so far; trials without a score are marked on the lower edge."""
    figure, axes = single_plot(sweep.title, height=4.2)
    scores = to_axis_unit(sweep, sweep.scores)
    best = scores.cummax() if sweep.by_accuracy else scores.cummin()
    last = sweep.trials["trial"].max()
    axes.step([*best.index, last], [*best, best.iloc[-1]], where="post", color=SERIES[1], label="best so far")
    # Not in the layout, which would make room for markers on the plot's edge.
    edge: dict[str, Any] = {"linestyle": "none", "clip_on": False, "in_layout": False}
    for status, trials in sweep.trials.groupby("status")["trial"]:
        marker, color, words = STATUSES[str(status)]
        style: dict[str, Any] = {"marker": marker, "color": color, **edge}
        scored = scores[scores.index.isin(trials)]
        axes.plot(scored.index, scored, label=f"{words} ({len(trials)})", **style)
        without = trials[~trials.isin(scored.index)]
        axes.plot(without, [0] * len(without), transform=axes.get_xaxis_transform(), **style)
    ring: dict[str, Any] = {"fillstyle": "none", "markersize": 11, "markeredgewidth": 1.4, "color": INK, "zorder": 4}
    for trial, marker, label in ((sweep.manifest["best_trial"], "o", "the winner"), (0, "s", OWN_VALUES)):
        if trial in scores:
            label = f"{label}: trial {trial}, {scores[trial]:.{1 if sweep.by_accuracy else 3}f}"
            axes.plot(trial, scores[trial], marker, label=label, clip_on=False, in_layout=False, **ring)
    return _with_score_axis(figure, axes, sweep, "trial")


@matplotlib.rc_context(STYLE)
def trial_curves(sweep: SweepResult) -> Figure:
    """The validation accuracy, or loss, of every trial by epoch."""
    figure, axes = single_plot(sweep.title, height=4.2)
    winner = sweep.manifest["best_trial"]
    column = "val_accuracy" if sweep.by_accuracy else "val_loss"
    statuses = sweep.trials.set_index("trial")["status"]
    by_trial = sweep.curves.groupby("trial")
    curves = {n: np.column_stack([rows["epoch"], to_axis_unit(sweep, rows[column])]) for n, rows in by_trial}
    for status, (marker, color, words) in STATUSES.items():
        own = [curves[trial] for trial in curves if statuses[trial] == status and trial not in (winner, 0)]
        if own:
            # Every so many points of a curve, the last among them.
            lines = [curve[:: -max(1, len(curve) // MAX_POINTS)][::-1] for curve in own]
            width = 1.1 if status == "finished" else 0.7
            axes.add_collection(LineCollection(lines, colors=color, linewidths=width, alpha=0.6))
            ends = np.array([curve[-1] for curve in own])
            axes.plot(*ends.T, marker, color=color, markersize=3, label=f"{words} ({len(own)})")
    if 0 in curves and winner != 0:
        axes.plot(*curves[0].T, color=INK, linestyle="--", label=f"{OWN_VALUES}: trial 0")
    label = f"the winner: trial {winner}{', ' + OWN_VALUES if winner == 0 else ''}"
    axes.plot(*curves[winner].T, color=SERIES[1], linewidth=2.8, label=label)
    selected = sweep.best_epochs.loc[winner]
    label = f"its best epoch: {selected['epoch']:.0f}"
    axes.plot(selected["epoch"], to_axis_unit(sweep, selected[column]), "o", color=INK, label=label)
    return _with_score_axis(figure, axes, sweep, "epoch")


class _Scale(NamedTuple):
    """An axis: key or score; trial -> position in [0, 1], NaN where not tried; position and text of each tick."""

    name: str
    positions: pd.Series
    ticks: list[tuple[float, str]]


@matplotlib.rc_context(STYLE)
def parallel_coordinates(sweep: SweepResult) -> Figure:
    """One line for each trial that came to a score, across its value of each key, down to its score.

    At most MAX_KEYS keys. Trials with the same choice are spread, the better to the right, to keep them apart.
    """
    scores = to_axis_unit(sweep, sweep.scores)
    rank = scores.rank(pct=True, ascending=sweep.by_accuracy)
    table = sweep.trials.set_index("trial").loc[scores.index]
    space = sweep.recipe["search"]["space"]
    scales = [_scale(key, table[key], space[key], rank) for key in sweep.keys[:MAX_KEYS]]
    margin = 0 if scores.min() < scores.max() else 1
    last = _numeric_scale(score_name(sweep), scores, scores.min() - margin, scores.max() + margin, MaxNLocator(5))
    if not sweep.by_accuracy:  # low losses to the right, as high accuracies
        last = _Scale(last.name, 1 - last.positions, [(1 - place, text) for place, text in last.ticks])
    scales.append(last)
    figure, axes = single_plot(sweep.title, height=0.9 + 0.6 * len(scales))
    rows = np.arange(len(scales))
    places = pd.DataFrame([scale.positions for scale in scales]).fillna(NOT_TRIED)
    lines = {trial: np.column_stack([places[trial], rows]) for trial in scores.index}
    winner = sweep.manifest["best_trial"]
    others = [trial for trial in rank.sort_values().index if trial not in (winner, 0)]
    colors = [to_rgba(SERIES[0], 0.05 + 0.65 * rank[trial] ** 4) for trial in others]
    axes.add_collection(LineCollection([lines[trial] for trial in others], colors=colors, linewidths=1.1))
    axes.hlines(rows, 0, 1, color=GRID, linewidth=0.9)
    if 0 in lines and winner != 0:
        axes.plot(*lines[0].T, "s--", color=INK, markersize=3.5, linewidth=1.5, label=f"{OWN_VALUES}: trial 0")
    label = f"the winner: trial {winner}{', ' + OWN_VALUES if winner == 0 else ''}"
    axes.plot(*lines[winner].T, "o-", color=SERIES[1], linewidth=2.4, label=label)
    if others:
        axes.plot([], [], color=SERIES[0], label=f"the other {len(others)}: the better, the darker")
    for row, scale in enumerate(scales):
        not_tried = [(NOT_TRIED, "not tried")] if scale.positions.isna().any() else []
        for place, text in [*not_tried, *scale.ticks]:
            axes.plot([place] * 2, [row, row + 0.07], color=GRID, linewidth=0.9)
            behind = {"facecolor": PAGE, "alpha": 0.8, "linewidth": 0, "pad": 0.6}
            axes.text(place, row + 0.12, text, ha="center", va="top", size=7.5, bbox=behind, zorder=5)
    axes.set_yticks(rows, [re.sub(r"(\.)| ", r"\1\n", scale.name, count=1) for scale in scales], size=8.5)
    axes.set(xticks=[], xlim=(NOT_TRIED - 0.08, 1.04), ylim=(len(scales) - 0.5, -0.2))
    axes.tick_params(length=0)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    return with_legend(figure)


@matplotlib.rc_context(STYLE)
def importance(sweep: SweepResult) -> Figure:
    """Each key's importance for the score, in percent of all keys'."""
    shares = [100 * sweep.manifest["importance"].get(key, 0) for key in sweep.keys]
    figure, axes = single_plot(sweep.title, height=0.8 + 0.27 * len(shares))
    bars = axes.barh(range(len(shares)), shares, 0.7, **bar_fill(0))
    axes.bar_label(bars, [f"{share:.1f}" for share in shares], padding=2, size=8)
    axes.set_yticks(range(len(shares)), [shorten(key, 34) for key in sweep.keys], size=8.5)
    axes.set(xlim=(0, 1.15 * max(shares)), ylim=(len(shares) - 0.5, -0.5), xlabel="importance, %")
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    return figure


@matplotlib.rc_context(STYLE)
def judgement(sweep: SweepResult) -> Figure:
    """Mean ACA of the winner and of the recipe's own values with each seed, and their difference against 0."""
    judged = sweep.judgement or {}
    figure = new_figure(sweep.title, WIDTH, 3.3)
    upper, lower = figure.subplots(2, 1, height_ratios=[2, 1])
    for row, (side, mean) in enumerate((("tuned", judged["first"]), ("default", judged["second"]))):
        each = [100 * aca for aca in judged["each"][side]]
        upper.plot(each, [row + 0.22] * len(each), ".", color=INK, markersize=4, alpha=0.7)
        upper.plot(100 * mean, row, MARKERS[row], color=SERIES[row], markersize=8)
        annotate_above(upper, 100 * mean, row, f"{100 * mean:.1f}")
    upper.set_yticks([0, 1], [f"the winner,\ntrial {sweep.manifest['best_trial']}", "the recipe's\nown values"])
    upper.set(ylim=(1.6, -0.6), xlabel="ACA, %; small points: each seed")
    difference, (low, high) = judged["difference"], judged["ci95"]
    spread = [[100 * (difference - low)], [100 * (high - difference)]]
    lower.errorbar(100 * difference, 0, xerr=spread, fmt="D", color=SERIES[2], capsize=4)
    lower.axvline(0, color=INK, linestyle=":", linewidth=1.2)
    annotate_above(lower, 100 * difference, 0, f"{100 * difference:+.1f}")
    lower.set_yticks([0], ["difference"])
    lower.set(ylim=(0.6, -0.9), xlabel="points, with 95 % interval; right of 0 the winner is better")
    for axes in (upper, lower):
        axes.margins(x=0.15)
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
    return figure


def score_name(sweep: SweepResult) -> str:
    """What a sweep's scores are, with their unit."""
    return "validation accuracy, %" if sweep.by_accuracy else "validation loss"


def to_axis_unit(sweep: SweepResult, scores: Any) -> Any:
    """Scores in percent, or the loss itself."""
    return 100 * scores if sweep.by_accuracy else scores


def _with_score_axis(figure: Figure, axes: Axes, sweep: SweepResult, counted: str) -> Figure:
    """The figure with scores over trials or epochs, and its legend."""
    axes.set(xlabel=counted, ylabel=f"{score_name(sweep)}\n(cells that chose)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if not sweep.by_accuracy:
        # One trial that nearly diverged would press all others together.
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(MaxNLocator(6))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_locator(NullLocator())
    return with_legend(figure)


def _scale(key: str, values: pd.Series, domain: Mapping[str, Any], rank: pd.Series) -> _Scale:
    if domain.get("choice"):
        return _categorical_scale(key, values, [yaml_text(value) for value in domain["choice"]], rank)
    numbers = pd.to_numeric(values, errors="coerce")
    if domain.get("loguniform"):
        low, high = domain["loguniform"]
        locator = LogLocator(subs=(1,) if high / low >= 100 else (1, 2, 5))
        return _numeric_scale(key, numbers, low, high, locator, log=True)
    low, high = domain.get("uniform") or domain["integer"]
    return _numeric_scale(key, numbers, low, high, MaxNLocator(5, integer=bool(domain.get("integer"))))


def _numeric_scale(
    name: str, values: pd.Series, low: float, high: float, locator: MaxNLocator | LogLocator, *, log: bool = False
) -> _Scale:
    values = values.where(values > 0) if log else values
    # The recipe's own values may lie outside of the space.
    low, high = np.nanmin([low, values.min()]), np.nanmax([high, values.max()])

    def place(value: Any) -> Any:
        value, first, last = (np.log(n) for n in (value, low, high)) if log else (value, low, high)
        return (value - first) / (last - first)

    ticks = [value for value in locator.tick_values(low, high) if low <= value <= high] or [low, high]
    return _Scale(name, place(values), [(place(value), f"{value:.6g}") for value in ticks])


def _categorical_scale(name: str, values: pd.Series, options: list[str], rank: pd.Series) -> _Scale:
    options += [text for text in values.dropna().unique() if text not in options]
    width = 1 / len(options)
    centres = {text: (i + 0.5) * width for i, text in enumerate(options)}
    alike = rank.groupby(values)
    places = values.map(centres) + 0.6 * width * ((alike.rank() - 0.5) / alike.transform("count") - 0.5)
    letters = 40 // len(options)
    # Three lines rather than one: mappings often differ at their end only.
    ticks = [(centres[text], "\n".join(textwrap.wrap(shorten(text, 3 * letters), letters)[:3])) for text in options]
    return _Scale(name, places, ticks)
