"""A sweep's figures, in the style of the report's others.

optuna.visualization is not used: the image that writes the report has no Optuna, and its plots show neither failed and
pruned trials nor the recipe's own values, and leave no room for the curves beside a legend of all trials on a phone.
"""

from __future__ import annotations

from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from hep2flow.reporting.figures import (
    GRID,
    INK,
    MARKERS,
    SERIES,
    STYLE,
    WIDTH,
    annotate_above,
    bar_fill,
    legend_below,
    set_title,
    shorten,
    single_plot,
)
from hep2flow.reporting.report_content import SweepResult

OWN_VALUES = "the recipe's own values"
MAX_POINTS = 60  # of a drawn curve: a page of 200 trials stays small
STATUSES = {
    "finished": ("o", SERIES[0]),
    "stopped": ("v", GRID),
    "failed": ("x", SERIES[3]),
    "running": ("d", SERIES[4]),
}
STATUS_NAMES = {"finished": "finished", "stopped": "stopped early", "failed": "failed", "running": "interrupted"}


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
        marker, color = STATUSES[str(status)]
        style: dict[str, Any] = {"marker": marker, "color": color, **edge}
        scored = scores[scores.index.isin(trials)]
        axes.plot(scored.index, scored, label=f"{STATUS_NAMES[str(status)]} ({len(trials)})", **style)
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
    curves = {
        trial: np.column_stack([rows["epoch"], to_axis_unit(sweep, rows[column])])
        for trial, rows in sweep.curves.groupby("trial")
    }
    for status, (marker, color) in STATUSES.items():
        own = [curves[trial] for trial in curves if statuses[trial] == status and trial not in (winner, 0)]
        if own:
            thin = status != "finished"
            lines = [_thinned(curve) for curve in own]
            axes.add_collection(LineCollection(lines, colors=color, linewidths=0.7 if thin else 1.1, alpha=0.6))
            ends = np.array([curve[-1] for curve in own])
            axes.plot(*ends.T, marker, color=color, markersize=3, label=f"{STATUS_NAMES[status]} ({len(own)})")
    if 0 in curves and winner != 0:
        axes.plot(*curves[0].T, color=INK, linestyle="--", label=f"{OWN_VALUES}: trial 0")
    label = f"the winner: trial {winner}{', ' + OWN_VALUES if winner == 0 else ''}"
    axes.plot(*curves[winner].T, color=SERIES[1], linewidth=2.8, label=label)
    selected = sweep.best_epochs.loc[winner]
    label = f"its best epoch: {selected['epoch']:.0f}"
    axes.plot(selected["epoch"], to_axis_unit(sweep, selected[column]), "o", color=INK, label=label)
    return _with_score_axis(figure, axes, sweep, "epoch")


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
    figure = Figure(figsize=(WIDTH, 3.3), layout="constrained", facecolor="none")
    upper, lower = figure.subplots(2, 1, height_ratios=[2, 1])
    set_title(figure, sweep.title)
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
    legend_below(figure)
    return figure


def _thinned(curve: Any) -> Any:
    """At most about MAX_POINTS points of a curve, the last among them."""
    return curve[:: -max(1, len(curve) // MAX_POINTS)][::-1]
