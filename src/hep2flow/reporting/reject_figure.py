"""The figure of the reject curve: accuracy on the cells a model is surest of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from hep2flow.reporting.figures import MARKERS, SERIES, STYLE, blank, legend_below, wrapped


@matplotlib.rc_context(STYLE)
def reject_curve(models: Mapping[str, Mapping[str, Any]], title: str = "") -> Figure:
    """Accuracy on the cells answered over their share, the surest first.

    models: name -> metrics with ``reject_curve``, see :func:`hep2flow.learning.reject.reject_curve`
    """
    figure, axes = blank(title, height=3.8)
    for i, (name, metrics) in enumerate(models.items()):
        coverage = [100 * point["coverage"] for point in metrics["reject_curve"]]
        accuracy = [100 * point["accuracy"] for point in metrics["reject_curve"]]
        style: dict[str, Any] = {"color": SERIES[i % len(SERIES)], "marker": MARKERS[i % len(MARKERS)], "markersize": 4}
        axes.plot(coverage, accuracy, linewidth=1.2, label=wrapped(name), **style)
    axes.set_xlim(0, 103)
    axes.set_ylim(top=101)
    axes.set_xlabel("cells answered, the surest first, %")
    axes.set_ylabel("accuracy on them, %")
    legend_below(figure)
    return figure
