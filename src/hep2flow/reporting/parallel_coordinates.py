"""A sweep's trials as lines across the keys of its space, downwards: long names of keys stay readable on a phone."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator

from hep2flow.reporting.figures import GRID, INK, PAGE, SERIES, STYLE, blank, legend_below, shorten
from hep2flow.reporting.report_content import SweepResult
from hep2flow.reporting.sweep_figures import OWN, score_name, shown
from hep2flow.search.space import written

MOST_KEYS = 8
UNTRIED = -0.12  # place of trials that did not try a key, left of its axis


@dataclass(frozen=True)
class _Scale:
    """One axis of the parallel coordinates: trial -> place in [0, 1] or UNTRIED, and what is written where."""

    name: str
    places: pd.Series
    ticks: list[tuple[float, str]]


@matplotlib.rc_context(STYLE)
def parallel_coordinates(sweep: SweepResult) -> Figure:
    """One line for each trial that came to a score, across its value of each key, down to its score.

    At most MOST_KEYS keys. Of the trials with one choice the better stand to the right, so that they can be told apart.
    """
    scores = shown(sweep, sweep.scores)
    goodness = scores.rank(pct=True, ascending=sweep.by_accuracy)
    table = sweep.trials.set_index("trial").loc[scores.index]
    space = sweep.recipe["search"]["space"]
    scales = [_scale(key, table[key], space[key], goodness) for key in sweep.keys[:MOST_KEYS]]
    margin = 0 if scores.min() < scores.max() else 1
    last = _numbers(score_name(sweep), scores, scores.min() - margin, scores.max() + margin, MaxNLocator(5))
    scales.append(last if sweep.by_accuracy else _mirrored(last))

    figure, axes = blank(sweep.title, height=0.9 + 0.6 * len(scales))
    rows = np.arange(len(scales))
    lines = {trial: np.column_stack([[scale.places[trial] for scale in scales], rows]) for trial in scores.index}
    winner = sweep.manifest["best_trial"]
    others = [trial for trial in goodness.sort_values().index if trial not in (winner, 0)]
    colors = [to_rgba(SERIES[0], 0.05 + 0.65 * goodness[trial] ** 4) for trial in others]
    axes.add_collection(LineCollection([lines[trial] for trial in others], colors=colors, linewidths=1.1))
    axes.hlines(rows, 0, 1, color=GRID, linewidth=0.9)
    if 0 in lines and winner != 0:
        axes.plot(*lines[0].T, "s--", color=INK, markersize=3.5, linewidth=1.5, label=f"{OWN}: trial 0")
    label = f"the winner: trial {winner}{', ' + OWN if winner == 0 else ''}"
    axes.plot(*lines[winner].T, "o-", color=SERIES[1], linewidth=2.4, label=label)
    if others:
        axes.plot([], [], color=SERIES[0], label=f"the other {len(others)}: the better, the darker")
    for row, scale in enumerate(scales):
        for place, text in scale.ticks:
            axes.plot([place] * 2, [row, row + 0.07], color=GRID, linewidth=0.9)
            behind = {"facecolor": PAGE, "alpha": 0.8, "linewidth": 0, "pad": 0.6}
            axes.text(place, row + 0.12, text, ha="center", va="top", size=7.5, bbox=behind, zorder=5)
    axes.set_yticks(rows, [re.sub(r"(\.)| ", r"\1\n", scale.name, count=1) for scale in scales], size=8.5)
    axes.set_ylim(len(scales) - 0.5, -0.2)
    axes.set_xlim(UNTRIED - 0.08, 1.04)
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    legend_below(figure)
    return figure


def _scale(key: str, values: pd.Series, domain: Mapping[str, Any], goodness: pd.Series) -> _Scale:
    if domain.get("choice"):
        return _choices(key, values, [written(value) for value in domain["choice"]], goodness)
    numbers = pd.to_numeric(values, errors="coerce")
    if domain.get("loguniform"):
        low, high = domain["loguniform"]
        several_decades = high / low >= 100
        return _numbers(key, numbers, low, high, LogLocator(subs=(1,) if several_decades else (1, 2, 5)), log=True)
    low, high = domain.get("uniform") or domain["integer"]
    return _numbers(key, numbers, low, high, MaxNLocator(5, integer=bool(domain.get("integer"))))


def _numbers(
    name: str, values: pd.Series, low: float, high: float, locator: MaxNLocator | LogLocator, *, log: bool = False
) -> _Scale:
    values = values.where(values > 0) if log else values
    # The recipe's own values may lie outside of the space.
    low, high = np.nanmin([low, values.min()]), np.nanmax([high, values.max()])

    def place(value: Any) -> Any:
        if log:
            value, first, last = np.log(value), np.log(low), np.log(high)
        else:
            first, last = low, high
        return (value - first) / (last - first)

    ticks = [value for value in locator.tick_values(low, high) if low <= value <= high] or [low, high]
    return _with_untried(name, place(values), [(place(value), f"{value:.6g}") for value in ticks])


def _choices(name: str, values: pd.Series, options: list[str], goodness: pd.Series) -> _Scale:
    options += [text for text in values.dropna().unique() if text not in options]
    width = 1 / len(options)
    centres = {text: (i + 0.5) * width for i, text in enumerate(options)}
    alike = goodness.groupby(values)
    places = values.map(centres) + 0.6 * width * ((alike.rank() - 0.5) / alike.transform("count") - 0.5)
    return _with_untried(name, places, [(centres[text], _in_lines(text, 40 // len(options))) for text in options])


def _with_untried(name: str, places: pd.Series, ticks: list[tuple[float, str]]) -> _Scale:
    if places.isna().any():
        ticks = [(UNTRIED, "not tried"), *ticks]
    return _Scale(name, places.fillna(UNTRIED), ticks)


def _mirrored(scale: _Scale) -> _Scale:
    """Low to the right: of losses the better."""
    return _Scale(scale.name, 1 - scale.places, [(1 - place, text) for place, text in scale.ticks])


def _in_lines(text: str, width: int) -> str:
    """Three lines at most: mappings often differ at their end only."""
    return "\n".join(textwrap.wrap(shorten(text, 3 * width), width)[:3])
