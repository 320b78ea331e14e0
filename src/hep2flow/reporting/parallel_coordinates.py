"""A sweep's trials as lines across the keys of its space, from top to bottom.

Not optuna.visualization's plot: its vertical axes write key names, ticks and categories over each other at a phone's width.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping
from typing import Any, NamedTuple

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator

from hep2flow.reporting.figures import GRID, INK, PAGE, SERIES, STYLE, legend_below, shorten, single_plot
from hep2flow.reporting.report_content import SweepResult
from hep2flow.reporting.sweep_figures import OWN_VALUES, score_name, to_axis_unit
from hep2flow.search.space import yaml_text

MAX_KEYS = 8
NOT_TRIED = -0.12  # position of trials that did not try a key, left of its axis


class _Scale(NamedTuple):
    """An axis: key or score; trial -> position in [0, 1], or NOT_TRIED; position and text of each tick."""

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
    lines = {trial: np.column_stack([[scale.positions[trial] for scale in scales], rows]) for trial in scores.index}
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
        for place, text in scale.ticks:
            axes.plot([place] * 2, [row, row + 0.07], color=GRID, linewidth=0.9)
            behind = {"facecolor": PAGE, "alpha": 0.8, "linewidth": 0, "pad": 0.6}
            axes.text(place, row + 0.12, text, ha="center", va="top", size=7.5, bbox=behind, zorder=5)
    axes.set_yticks(rows, [re.sub(r"(\.)| ", r"\1\n", scale.name, count=1) for scale in scales], size=8.5)
    axes.set(xticks=[], xlim=(NOT_TRIED - 0.08, 1.04), ylim=(len(scales) - 0.5, -0.2))
    axes.tick_params(length=0)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    legend_below(figure)
    return figure


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
    return _with_not_tried(name, place(values), [(place(value), f"{value:.6g}") for value in ticks])


def _categorical_scale(name: str, values: pd.Series, options: list[str], rank: pd.Series) -> _Scale:
    options += [text for text in values.dropna().unique() if text not in options]
    width = 1 / len(options)
    centres = {text: (i + 0.5) * width for i, text in enumerate(options)}
    alike = rank.groupby(values)
    places = values.map(centres) + 0.6 * width * ((alike.rank() - 0.5) / alike.transform("count") - 0.5)
    return _with_not_tried(name, places, [(centres[text], _wrapped(text, 40 // len(options))) for text in options])


def _with_not_tried(name: str, places: pd.Series, ticks: list[tuple[float, str]]) -> _Scale:
    if places.isna().any():
        ticks = [(NOT_TRIED, "not tried"), *ticks]
    return _Scale(name, places.fillna(NOT_TRIED), ticks)


def _wrapped(text: str, width: int) -> str:
    # Three lines rather than one: mappings often differ at their end only.
    return "\n".join(textwrap.wrap(shorten(text, 3 * width), width)[:3])
