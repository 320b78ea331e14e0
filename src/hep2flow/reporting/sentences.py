"""Sentences of the report: warnings, verdict, evidence and data. Computed from the numbers, never canned."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from hep2flow.evaluation.bootstrap import SPECIMEN_BOOTSTRAP
from hep2flow.reporting.figures import SUBSET_NAMES, display_name
from hep2flow.reporting.formatting import interval, percent, significance
from hep2flow.reporting.report_content import Family, ModelResult, ReportContent

SUSPICIOUS_ACA = 0.85  # on the official ICPR 2012 split; published results end near 81 %
ANSWERED = 0.8  # coverage at which the reject curve is read


def warnings(content: ReportContent) -> list[str]:
    """Everything a reader has to know before the first number."""
    found = []
    models = content.models
    if content.dataset["synthetic"]:
        found.append("Synthetic data: generated cells, says nothing about real ones.")
    if chosen := [model for model in models if model.metrics["selected_on_test"]]:
        whose = "S" if len(chosen) == len(models) else f"{_titles(chosen)}: s"
        found.append(f"{whose}elected on the test set: optimistic, not a test result.")
    if validated := [model for model in models if model.metrics["subset"] == "validation"]:
        whose = "" if len(validated) == len(models) else f" of {_titles(validated)}"
        found.append(f"Validation: the numbers{whose} are of validation cells; chosen on these cells: optimistic.")
    others = [model.metrics for model in models if not model.metrics["paper_model"]]
    laptop = dict.fromkeys(metrics["network"] for metrics in others if metrics["profile"] == "laptop")
    full = dict.fromkeys(metrics["network"] for metrics in others if metrics["profile"] != "laptop")
    if laptop:
        found.append(f"Stand-ins, not the paper's models: small networks for a laptop ({', '.join(laptop)}).")
    if full:
        found.append(f"Not one of the paper's two networks: {', '.join(full)}.")
    for family in content.families:
        if content.comparable_with_paper(family.representative) and family.scores["aca"] > SUSPICIOUS_ACA:
            far_above = "is far above the published results on this test set; look for a leak before believing it."
            found.append(f"{family.name}: {percent(family.scores['aca'])} {far_above}")
    if content.split["shared_specimens"] != 0:
        found.append(shared_specimens(content.split["shared_specimens"]))
    if content.leakage and content.leakage["test_specimens"]:
        found.append(f"Leakage: {shared_test_specimens(content.leakage['test_specimens'])}")
    if content.leakage and content.leakage["duplicates"]["count"]:
        found.append(f"Leakage: {duplicates(content.leakage['duplicates'])}")
    return found


def _titles(models: Sequence[ModelResult]) -> str:
    return " and ".join(dict.fromkeys(model.title for model in models))


def verdict(content: ReportContent) -> list[str]:
    """Which model is best, how good, against the majority class, against the next model, and beside the paper."""
    best = content.families[0]
    aca, bounds = best.scores["aca"], best.scores["ci95"]["aca"]
    label, share = majority_class(best.representative.metrics)
    return [
        f"{best.name}: {percent(aca)} of {cells_of(best.representative)} were classified correctly "
        f"(ACA{over_seeds(best)}; 95 % interval {interval(bounds)}, {best.scores['ci95_method']}).",
        f"Always answering {display_name(label)}, the largest class, would give {percent(share)}: "
        f"{'the whole interval lies above that' if bounds[0] > share else 'that is not excluded by the interval'}.",
        *([lead_over_next(content)] if len(content.families) > 1 else []),
        paper_comparison(content, best),
    ]


def cells_of(model: ModelResult) -> str:
    """What a model was evaluated on, for example ``734 test cells``."""
    return f"{model.metrics['n']:,} {model.metrics['subset']} cells"


def majority_class(metrics: Mapping[str, Any]) -> tuple[str, float]:
    """The most frequent pattern and its share, which is the ACA of always predicting it."""
    label = max(metrics["labels"], key=lambda name: metrics["per_class"][name]["support"])
    return label, metrics["per_class"][label]["support"] / metrics["n"]


def over_seeds(family: Family) -> str:
    """Of how many seeds a family's ACA is the mean, and its standard deviation; empty for one seed."""
    deviation = family.deviation("aca")
    if deviation is None:
        return ""
    return f", mean of {len(family.models)} seeds with a standard deviation of {100 * deviation:.1f} points"


def lead_over_next(content: ReportContent) -> str:
    """Whether the best model is better than the next beyond the noise."""
    second, paired = content.families[1], content.lead
    if paired is None:
        return f"{second.name} was evaluated on other cells: the two are not compared."
    aca = f"{percent(second.scores['aca'])}{over_seeds(second)}, interval {interval(second.scores['ci95']['aca'])}"
    return f"Its lead of {100 * paired['difference']:.1f} points over {second.name} ({aca}) {significance(paired)}."


def paper_comparison(content: ReportContent, family: Family) -> str:
    """The paper's accuracies, and whether this model's may be compared with them."""
    model = family.representative
    paper = "the paper reports 73.9 % (ConvNeXt-B) and 75.6 % (“custom CoAtNet”, timm's coat_mini)"
    if not content.real_icpr2012:
        return f"For context only, {paper}: other data, not comparable."
    if not content.comparable_with_paper(model):
        why = "selected on it" if model.metrics["selected_on_test"] else "measured elsewhere"
        return f"For context only, {paper}, on the official test set; this number was {why}: not comparable."
    low, high = family.scores["ci95"]["aca"]
    inside = [figure for figure in ("73.9", "75.6") if 100 * low <= float(figure) <= 100 * high]
    which = {0: "neither lies", 1: f"only {inside[0] if inside else ''} % lies", 2: "both lie"}[len(inside)]
    return f"On the same 734 cells {paper}; {which} inside the interval."


def interval_basis(content: ReportContent) -> str:
    """How the intervals were computed, and on how many specimens they rest."""
    best = content.families[0]
    metrics, method = best.representative.metrics, best.scores["ci95_method"]
    over = f" over {len(metrics['by_specimen'])} specimens" if method == SPECIMEN_BOOTSTRAP else ""
    text = f"Intervals: {method}{over}."
    if alone := metrics.get("ci95_one_specimen"):  # missing in evaluations of earlier versions
        unknown = "what another specimen would do is unknown, and not in the intervals of MCA and macro F1."
        text += f" All cells of {' and of '.join(map(display_name, alone))} are of one specimen each: {unknown}"
    return f"{text} Means over seeds; seeds themselves are not drawn." if content.several_seeds else text


def per_class(models: Sequence[ModelResult]) -> str:
    """Best and worst pattern of each model."""
    parts = []
    for model in models:
        scores = {label: entry["f1"] for label, entry in model.metrics["per_class"].items() if entry["f1"] is not None}
        worst, best = min(scores, key=scores.__getitem__), max(scores, key=scores.__getitem__)
        names = {label: f"{display_name(label)} ({percent(f1)})" for label, f1 in scores.items()}
        parts.append(f"{model.name}: best on {names[best]}, worst on {names[worst]}")
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
    cells = f"{count} of {support} {display_name(truth)} cells ({percent(count / support)})"
    return f"Most frequent confusion: {cells} were called {display_name(predicted)}."


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
    accuracy = percent(selected["val_accuracy"])
    text = f"Epoch {selected['epoch']} of {history[-1]['epoch']} was selected, with a validation accuracy of {accuracy}"
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
        right = f"right on {percent(point['accuracy'])} of them, against {percent(model.metrics['aca'])} of all"
        surest = percent(point["coverage"])
        parts.append(f"{model.name}: answering only the surest {surest} of cells would be {right}")
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
            right = f"{sum(row['vote_correct'] for row in rows)} of {len(rows)} specimens right by majority vote"
            share = f"{display_name(hardest['pattern'])}, {percent(hardest['accuracy'])} of {hardest['n']} cells"
            parts.append(f"{model.name}: {right}; hardest is {hardest['specimen_id']} ({share})")
    if not parts:
        return "Specimens are unknown in this data set."
    fewest = min(Counter(row["pattern"] for row in models[0].metrics["by_specimen"]).values())
    return "; ".join(parts) + f". Some patterns rest on {fewest} specimen{'' if fewest == 1 else 's'} only."


def leakage(content: ReportContent) -> str:
    """What cells of different subsets share: specimens, blocks of IDs, and near-duplicate images."""
    sentences = [shared_specimens(content.split["shared_specimens"])]
    if found := content.leakage:
        if found["test_specimens"] is not None:
            sentences.append(shared_test_specimens(found["test_specimens"]))
        if blocks := found["id_blocks"]:
            of = f"Of {blocks['of']} blocks of contiguous IDs, a proxy for the unpublished specimens,"
            have = "has" if blocks["shared"] == 1 else "have"
            sentences.append(f"{of} {blocks['shared']} {have} cells in more than one subset.")
        sentences.append(duplicates(found["duplicates"]))
    return " ".join(sentences)


def shared_specimens(shared: int | None) -> str:
    """How many specimens have cells in both training and validation; None: specimens are unknown."""
    if shared is None:
        return (
            "Leakage: specimens are unknown, so cells of one specimen may stand in both training and validation; "
            "validation accuracy may flatter."
        )
    if shared == 0:
        return "Leakage: no specimen has cells in both training and validation."
    return (
        f"Leakage: {_specimens_have(shared)} cells in both training and "
        "validation; validation accuracy flatters, and so does the choice of the epoch."
    )


def shared_test_specimens(shared: int) -> str:
    """How many specimens have cells in the test set and elsewhere."""
    if shared == 0:
        return "No specimen of the test set has cells in another subset."
    return f"{_specimens_have(shared)} cells in the test set and in training or validation too; test accuracy flatters."


def _specimens_have(shared: int) -> str:
    return f"{shared} {'specimen has' if shared == 1 else 'specimens have'}"


def duplicates(found: Mapping[str, Any]) -> str:
    """How many pairs of cells of different subsets are near-duplicates, and the closest pair."""
    if not found["count"]:
        return "No two cells of different subsets are near-duplicates."
    closest = found["pairs"][0]
    (one, other), (here, there) = closest["cells"], (SUBSET_NAMES[subset] for subset in closest["subsets"])
    how = "equal to the pixel" if closest["correlation"] is None else f"correlation {closest['correlation']:.3f}"
    pairs = "1 pair of cells of different subsets is a near-duplicate"
    if found["count"] > 1:
        pairs = f"{found['count']:,} pairs of cells of different subsets are near-duplicates"
    pair = f"the closest are {one} ({here}) and {other} ({there}), {how}"
    return f"{pairs}, {found['equal']:,} equal to the pixel; {pair}. Accuracy on such cells flatters."


def class_balance(content: ReportContent) -> str:
    """How unequal the patterns are in the training cells."""
    counts = {pattern: n for pattern, n in content.split["pattern_counts"]["train"].items() if n}
    most, least = max(counts, key=counts.__getitem__), min(counts, key=counts.__getitem__)
    larger, smaller = (f"{display_name(pattern)} ({counts[pattern]})" for pattern in (most, least))
    times = f"{counts[most] / counts[least]:.1f} times"
    return f"Among the training cells {larger} is {times} as frequent as {smaller}."


def cell_sizes(content: ReportContent) -> str:
    """Range and median of the cells' width and height."""
    width, height = content.cells["width"], content.cells["height"]
    sides = f"{width.min()} to {width.max()} pixels wide and {height.min()} to {height.max()} high"
    return f"Cells are {sides} (median {width.median():.0f} × {height.median():.0f}); brightness is shown as stored."


def masking(content: ReportContent) -> str:
    """What was masked, and where the masks came from."""
    facts = content.dataset.get("mask")
    if not facts or facts["mode"] == "none":
        return "The images were not masked."
    derived = facts["derived"]  # a count; True in data sets of earlier versions
    how_many = "" if not derived else ", derived" if derived is True else f", {derived:,} derived"
    masks = f"{facts['source']}{how_many}{' from the images' if derived else ''}"
    return (
        f"Masking ({facts['mode']}) keeps the pixels inside the mask and sets every other pixel to 0; masks: {masks}."
    )


def augmentations(model: ModelResult) -> str:
    """Which augmentations made the cells of a training batch."""
    recipe = model.recipe
    mixing = {name: recipe["batch"][name] for name in ("mixup", "cutmix")}
    active = [_augmentation(name, value) for name, value in {**recipe["augment"], **mixing}.items() if value]
    if not active:
        return "The recipe augments nothing: the cells are resized only."
    mixed = "; each cell is mixed with the one whose pattern is named second" if any(mixing.values()) else ""
    return f"Of the first batch of the first epoch, as its network was shown them, made by {', '.join(active)}{mixed}."


def _augmentation(name: str, value: Any) -> str:
    """An augmentation in words, for example ``cutout (side 0.5)``."""
    words = name.replace("_", " ")
    if value is True:
        return words
    if isinstance(value, Mapping):
        return f"{words} ({', '.join(f'{key} {_number_or_range(entry)}' for key, entry in value.items() if entry)})"
    return f"{words} ({_number_or_range(value)})"


def _number_or_range(value: Any) -> str:
    return " to ".join(f"{end:g}" for end in value) if isinstance(value, Sequence) else f"{value:g}"
