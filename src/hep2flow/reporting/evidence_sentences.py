"""Sentences on the evaluations: per pattern, confusion, mistakes, learning, calibration, specimens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pandas as pd

from hep2flow.reporting.figures import display_name
from hep2flow.reporting.formatting import percent
from hep2flow.reporting.report_content import ModelResult

ANSWERED = 0.8  # coverage at which the reject curve is read


def per_class(models: Sequence[ModelResult]) -> str:
    """Best and worst pattern of each model."""
    parts = []
    for model in models:
        scores = {label: entry["f1"] for label, entry in model.metrics["per_class"].items() if entry["f1"] is not None}
        worst, best = min(scores, key=scores.__getitem__), max(scores, key=scores.__getitem__)
        parts.append(
            f"{model.name}: best on {display_name(best)} ({percent(scores[best])}), "
            f"worst on {display_name(worst)} ({percent(scores[worst])})"
        )
    return "; ".join(parts) + "."


def confusion(model: ModelResult) -> str:
    """The most frequent confusion."""
    metrics = model.metrics
    count, truth, predicted = max(
        (count, truth, predicted)
        for truth, row in zip(metrics["labels"], metrics["confusion"], strict=True)
        for predicted, count in zip(metrics["labels"], row, strict=True)
        if truth != predicted
    )
    if count == 0:
        return "No cell was misclassified."
    support = metrics["per_class"][truth]["support"]
    return (
        f"Most frequent confusion: {count} of {support} {display_name(truth)} cells "
        f"({percent(count / support)}) were called {display_name(predicted)}."
    )


def mistakes(model: ModelResult, cells: pd.DataFrame) -> str:
    """What the most confident mistakes have in common; cells: cell_id, intensity, specimen_id of these at least."""
    assert model.mistakes is not None, "called only for models with mistakes"
    table = model.mistakes.merge(cells[["cell_id", "intensity", "specimen_id"]], on="cell_id")
    (((truth, predicted), count),) = Counter(zip(table["truth"], table["predicted"], strict=True)).most_common(1)
    common = ["no two are the same confusion"]
    if count > 1:
        common = [f"{count} are {display_name(truth)} cells called {display_name(predicted)}"]
    if table["intensity"].notna().any():
        common.append(f"{percent((table['intensity'] == 'intermediate').mean())} are intermediate cells")
    if table["specimen_id"].notna().any():
        ((specimen, most),) = Counter(table["specimen_id"].dropna()).most_common(1)
        common.append(f"{percent(most / len(table))} are of specimen {specimen}")
    wrong = int((model.predictions["truth"] != model.predictions["predicted"]).sum())
    *first, last = common
    return f"Of the {len(table)} most confident of {wrong} mistakes {', '.join(first)}{' and ' if first else ''}{last}."


def learning(model: ModelResult) -> str:
    """Which epoch was selected, and whether training should have been longer or shorter."""
    history = model.history
    selected = next((entry for entry in reversed(history) if entry["best"]), history[-1])
    text = (
        f"Epoch {selected['epoch']} of {history[-1]['epoch']} was selected, "
        f"with a validation accuracy of {percent(selected['val_accuracy'])}"
    )
    losses = [entry["val_loss"] for entry in history if entry["val_loss"] is not None]
    if selected is history[-1]:
        return f"{text}; it is the last one, so longer training may help."
    if losses and losses[-1] > 1.1 * min(losses):
        return f"{text}; validation loss ends {percent(losses[-1] / min(losses) - 1)} above its lowest: overfitting."
    return f"{text}; no overfitting shows in the validation loss."


def calibration(models: Sequence[ModelResult]) -> str:
    """Over- or underconfident, and by how much."""
    parts = []
    for model in models:
        metrics = model.metrics
        confidence = sum(b["n"] * b["confidence"] for b in metrics["reliability"] if b["n"]) / metrics["n"]
        direction = "overconfident" if confidence > metrics["aca"] else "underconfident"
        parts.append(f"{model.name}: {direction}, off by {100 * metrics['ece']:.1f} points on average (ECE)")
    return "; ".join(parts) + "."


def reject(models: Sequence[ModelResult]) -> str:
    """Accuracy where only the most confident share of the cells is answered."""
    parts = []
    for model in models:
        point = next(point for point in model.metrics["reject_curve"] if point["coverage"] >= ANSWERED)
        parts.append(
            f"{model.name}: answering only the surest {percent(point['coverage'])} of cells would be right on "
            f"{percent(point['accuracy'])} of them, against {percent(model.metrics['aca'])} of all"
        )
    return "; ".join(parts) + "."


def intensity(models: Sequence[ModelResult]) -> str:
    """How much less accurate the models are on dim cells."""
    parts = []
    for model in models:
        levels = model.metrics["by_intensity"]
        if {"positive", "intermediate"} <= set(levels):
            gap = 100 * (levels["positive"]["aca"] - levels["intermediate"]["aca"])
            side = "worse" if gap > 0 else "better"
            parts.append(f"{model.name}: {abs(gap):.1f} points {side} on intermediate cells")
    return "; ".join(parts) + "." if parts else "Intensity levels are not known for both kinds of cells."


def specimens(models: Sequence[ModelResult]) -> str:
    """Specimens right by majority vote, and the hardest one."""
    parts = []
    for model in models:
        if rows := model.metrics["by_specimen"]:
            hardest = min(rows, key=lambda row: row["accuracy"])
            parts.append(
                f"{model.name}: {sum(row['vote_correct'] for row in rows)} of {len(rows)} specimens right by majority "
                f"vote; hardest is {hardest['specimen_id']} ({display_name(hardest['pattern'])}, "
                f"{percent(hardest['accuracy'])} of {hardest['n']} cells)"
            )
    if not parts:
        return "Specimens are unknown in this data set."
    fewest = min(Counter(row["pattern"] for row in models[0].metrics["by_specimen"]).values())
    return "; ".join(parts) + f". Some patterns rest on {fewest} specimen{'' if fewest == 1 else 's'} only."
