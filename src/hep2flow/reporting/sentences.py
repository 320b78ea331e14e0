"""What the numbers say, in sentences: computed, never canned."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from hep2flow.evaluation.bootstrap import SPECIMEN_BOOTSTRAP
from hep2flow.reporting.figures import spell
from hep2flow.reporting.report_content import Family, ModelResult, ReportContent

RESEARCH_ONLY = "Research use only, not for clinical use."
SUBSET_NAMES = {"train": "training", "val": "validation", "test": "test"}
ANSWERED = 0.8  # of the cells: where the reject curve is read
SUSPICIOUS_ACA = 0.85  # on the official ICPR 2012 split; published results end near 81 %


def percent(value: float | None) -> str:
    """A share as ``75.6 %``; a dash where it is undefined."""
    return "–" if value is None else f"{100 * value:.1f} %"


def interval(bounds: Sequence[float]) -> str:
    """A 95 % interval as ``66.1 to 83.0``, in percent."""
    return f"{100 * bounds[0]:.1f} to {100 * bounds[1]:.1f}"


def points(bounds: Sequence[float]) -> str:
    """An interval of a difference as ``[-2.0, 5.3]``, in points."""
    return f"[{100 * bounds[0]:.1f}, {100 * bounds[1]:.1f}]"


def probability(p: float) -> str:
    """A test's p as ``p = 0.41``."""
    return f"p = {p:.2g}"


def noise(paired: Mapping[str, Any]) -> str:
    """What a difference, see :meth:`Family.against`, is to be taken for."""
    side = "outside" if paired["outside_noise"] else "inside"
    return f"is {side} the noise: {probability(paired['permutation']['p'])}, interval {points(paired['ci95'])}"


def warnings(content: ReportContent) -> list[str]:
    """Everything a reader has to know before the first number."""
    found = []
    models = content.models
    if content.dataset["synthetic"]:
        found.append("Synthetic data: generated cells, says nothing about real ones.")
    chosen = [model for model in models if model.metrics["selected_on_test"]]
    if chosen:
        found.append(f"{_whose(chosen, models)}elected on the test set: optimistic, not a test result.")
    validated = [model for model in models if model.metrics["subset"] == "validation"]
    if validated:
        whose = "" if len(validated) == len(models) else f" of {_titles(validated)}"
        found.append(f"Validation: the numbers{whose} are of validation cells; chosen on these cells: optimistic.")
    laptop = [m for m in models if not m.metrics["paper_model"] and m.metrics["profile"] == "laptop"]
    if laptop:
        networks = ", ".join(dict.fromkeys(model.metrics["network"] for model in laptop))
        found.append(f"Stand-ins, not the paper's models: small networks for a laptop ({networks}).")
    others = [m for m in models if not m.metrics["paper_model"] and m.metrics["profile"] != "laptop"]
    if others:
        networks = ", ".join(dict.fromkeys(model.metrics["network"] for model in others))
        found.append(f"Not one of the paper's two networks: {networks}.")
    for family in content.families:
        if content.comparable_with_paper(family.shown) and family.scores["aca"] > SUSPICIOUS_ACA:
            found.append(
                f"{family.name}: {percent(family.scores['aca'])} is far above the published results on this "
                "test set; look for a leak before believing it."
            )
    if content.split["shared_specimens"] != 0:
        found.append(_shared_specimens(content))
    if content.leakage:
        if content.leakage["test_specimens"]:
            found.append(f"Leakage: {_test_specimens(content.leakage)}")
        if content.leakage["duplicates"]["count"]:
            found.append(f"Leakage: {_duplicates(content.leakage['duplicates'])}")
    return found


def _titles(models: Sequence[ModelResult]) -> str:
    return " and ".join(dict.fromkeys(model.title for model in models))


def _whose(chosen: Sequence[ModelResult], models: Sequence[ModelResult]) -> str:
    return "S" if len(chosen) == len(models) else f"{_titles(chosen)}: s"


def leakage(content: ReportContent) -> str:
    """What cells of different subsets share: specimens, blocks of IDs, and what they show."""
    sentences = [_shared_specimens(content)]
    if content.leakage:
        if content.leakage["test_specimens"] is not None:
            sentences.append(_test_specimens(content.leakage))
        if content.leakage["id_blocks"]:
            sentences.append(_id_blocks(content.leakage["id_blocks"]))
        sentences.append(_duplicates(content.leakage["duplicates"]))
    return " ".join(sentences)


def _test_specimens(found: Mapping[str, Any]) -> str:
    shared = found["test_specimens"]
    if shared == 0:
        return "No specimen of the test set has cells in another subset."
    return f"{_specimens_have(shared)} cells in the test set and in training or validation too; test accuracy flatters."


def _id_blocks(blocks: Mapping[str, int]) -> str:
    return (
        f"Of {blocks['of']} blocks of contiguous IDs, a proxy for the unpublished specimens, {blocks['shared']} "
        f"{'has' if blocks['shared'] == 1 else 'have'} cells in more than one subset."
    )


def _duplicates(found: Mapping[str, Any]) -> str:
    if not found["count"]:
        return "No two cells of different subsets are near-duplicates."
    pair = found["pairs"][0]
    (one, other), (here, there) = pair["cells"], (SUBSET_NAMES[subset] for subset in pair["subsets"])
    how = "equal to the pixel" if pair["correlation"] is None else f"correlation {pair['correlation']:.3f}"
    pairs = "1 pair of cells of different subsets is a near-duplicate"
    if found["count"] > 1:
        pairs = f"{found['count']:,} pairs of cells of different subsets are near-duplicates"
    return (
        f"{pairs}, {found['equal']:,} equal to the pixel; the closest are {one} ({here}) and {other} ({there}), {how}. "
        "Accuracy on such cells flatters."
    )


def _specimens_have(shared: int) -> str:
    return f"{shared} {'specimen has' if shared == 1 else 'specimens have'}"


def _shared_specimens(content: ReportContent) -> str:
    """Whether cells of one specimen stand on both sides of training and validation."""
    shared = content.split["shared_specimens"]
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


def cells_of(model: ModelResult) -> str:
    """What a model was evaluated on, for example ``734 test cells``."""
    return f"{model.metrics['n']:,} {model.metrics['subset']} cells"


def chance(metrics: dict[str, Any]) -> tuple[str, float]:
    """The most frequent pattern and its share: the ACA of always answering it."""
    label = max(metrics["labels"], key=lambda name: metrics["per_class"][name]["support"])
    return label, metrics["per_class"][label]["support"] / metrics["n"]


def verdict(content: ReportContent) -> list[str]:
    """The answer first: which model, how good, against chance, and whether it differs from the next."""
    best = content.families[0]
    scores = best.scores
    sentences = [
        f"{best.name}: {percent(scores['aca'])} of {cells_of(best.shown)} were classified correctly "
        f"(ACA{over_seeds(best)}; 95 % interval {interval(scores['ci95']['aca'])}, {scores['ci95_method']})."
    ]
    label, share = chance(best.shown.metrics)
    above = scores["ci95"]["aca"][0] > share
    sentences.append(
        f"Always answering {spell(label)}, the largest class, would give {percent(share)}: "
        f"{'the whole interval lies above that' if above else 'that is not excluded by the interval'}."
    )
    if len(content.families) > 1:
        sentences.append(difference(content))
    sentences.append(against_paper(content, best))
    return sentences


def over_seeds(family: Family, key: str = "aca") -> str:
    """Of how many seeds a family's number is the mean, and how far they scatter; nothing for one seed."""
    deviation = family.deviation(key)
    if deviation is None:
        return ""
    return f", mean of {len(family.models)} seeds with a standard deviation of {100 * deviation:.1f} points"


def difference(content: ReportContent) -> str:
    """Whether the best model is better than the next beyond the noise."""
    second, paired = content.families[1], content.lead
    if paired is None:
        return f"{second.name} was evaluated on other cells: the two are not compared."
    return (
        f"Its lead of {100 * paired['difference']:.1f} points over {second.name} ({percent(second.scores['aca'])}"
        f"{over_seeds(second)}, interval {interval(second.scores['ci95']['aca'])}) {noise(paired)}."
    )


def scores(content: ReportContent) -> str:
    """How the intervals were made, and how much they rest on."""
    best = content.families[0]
    method, specimens = best.scores["ci95_method"], len(best.shown.metrics["by_specimen"])
    text = (
        f"Intervals: {method} over {specimens} specimens." if method == SPECIMEN_BOOTSTRAP else f"Intervals: {method}."
    )
    alone = best.shown.metrics.get("ci95_one_specimen")  # evaluations of earlier versions do not say
    if alone:
        text += (
            f" All cells of {' and of '.join(map(spell, alone))} are of one specimen each: what another specimen would "
            "do is unknown, and not in the intervals of MCA and macro F1."
        )
    return f"{text} Means over seeds; seeds themselves are not drawn." if content.several_seeds else text


def against_paper(content: ReportContent, family: Family) -> str:
    """How the paper's figures may be read beside this model's."""
    model = family.shown
    paper = "the paper reports 73.9 % (ConvNeXt-B) and 75.6 % (“custom CoAtNet”, timm's coat_mini)"
    if not content.real_icpr2012:
        return f"For context only, {paper}: other data, not comparable."
    if not content.comparable_with_paper(model):
        why = "selected on it" if model.metrics["selected_on_test"] else "measured elsewhere"
        return f"For context only, {paper}, on the official test set; this number was {why}: not comparable."
    low, high = family.scores["ci95"]["aca"]
    inside = [figure for figure in ("73.9", "75.6") if 100 * low <= float(figure) <= 100 * high]
    held = {0: "neither lies", 1: f"only {inside[0] if inside else ''} % lies", 2: "both lie"}[len(inside)]
    return f"On the same 734 cells {paper}; {held} inside the interval."


def confusion(model: ModelResult) -> str:
    """The most frequent confusion."""
    metrics = model.metrics
    wrong = [
        (count, truth, called)
        for truth, row in zip(metrics["labels"], metrics["confusion"], strict=True)
        for called, count in zip(metrics["labels"], row, strict=True)
        if truth != called
    ]
    count, truth, called = max(wrong)
    if count == 0:
        return "No cell was misclassified."
    support = metrics["per_class"][truth]["support"]
    return (
        f"Most frequent confusion: {count} of {support} {spell(truth)} cells "
        f"({percent(count / support)}) were called {spell(called)}."
    )


def mistakes(model: ModelResult, cells: pd.DataFrame) -> str:
    """What the most confident mistakes have in common; cells: cell_id, intensity, specimen_id of these at least."""
    assert model.mistakes is not None, "asked of models that have some"
    table = model.mistakes.merge(cells[["cell_id", "intensity", "specimen_id"]], on="cell_id")
    (pair, count), *_ = Counter(zip(table["truth"], table["predicted"], strict=True)).most_common()
    shared = [
        f"{count} are {spell(pair[0])} cells called {spell(pair[1])}" if count > 1 else "no two are the same confusion"
    ]
    if table["intensity"].notna().any():
        shared.append(f"{percent((table['intensity'] == 'intermediate').mean())} are intermediate cells")
    if table["specimen_id"].notna().any():
        (specimen, most), *_ = Counter(table["specimen_id"].dropna()).most_common()
        shared.append(f"{percent(most / len(table))} are of specimen {specimen}")
    wrong = int((model.predictions["truth"] != model.predictions["predicted"]).sum())
    *first, last = shared
    return f"Of the {len(table)} most confident of {wrong} mistakes {', '.join(first)}{' and ' if first else ''}{last}."


def augmentations(model: ModelResult) -> str:
    """Which augmentations made the cells of a training batch."""
    recipe = model.recipe
    mixing = {name: recipe["batch"][name] for name in ("mixup", "cutmix")}
    active = [_named(name, value) for name, value in {**recipe["augment"], **mixing}.items() if value]
    if not active:
        return "The recipe augments nothing: the cells are resized only."
    mixed = "; each cell is mixed with the one whose pattern is named second" if any(mixing.values()) else ""
    return f"Of the first batch of the first epoch, as its network was shown them, made by {', '.join(active)}{mixed}."


def _named(name: str, value: Any) -> str:
    """An augmentation in words, for example ``cutout (side 0.5)``."""
    words = name.replace("_", " ")
    if value is True:
        return words
    if isinstance(value, Mapping):
        return f"{words} ({', '.join(f'{key} {_range(entry)}' for key, entry in value.items() if entry)})"
    return f"{words} ({_range(value)})"


def _range(value: Any) -> str:
    return " to ".join(f"{end:g}" for end in value) if isinstance(value, Sequence) else f"{value:g}"


def learning(model: ModelResult) -> str:
    """Which epoch was kept, and whether training should have been longer or shorter."""
    history = model.history
    kept = next((entry for entry in reversed(history) if entry["best"]), history[-1])
    text = (
        f"Epoch {kept['epoch']} of {history[-1]['epoch']} was kept, "
        f"with a validation accuracy of {percent(kept['val_accuracy'])}"
    )
    losses = [entry["val_loss"] for entry in history if entry["val_loss"] is not None]
    if kept is history[-1]:
        return f"{text}; it is the last one, so longer training may help."
    if losses and losses[-1] > 1.1 * min(losses):
        return f"{text}; validation loss ends {percent(losses[-1] / min(losses) - 1)} above its lowest: overfitting."
    return f"{text}; no overfitting shows in the validation loss."


def per_class(models: Sequence[ModelResult]) -> str:
    """Best and worst pattern of each model."""
    parts = []
    for model in models:
        scores = {label: entry["f1"] for label, entry in model.metrics["per_class"].items() if entry["f1"] is not None}
        worst, best = min(scores, key=scores.__getitem__), max(scores, key=scores.__getitem__)
        parts.append(
            f"{model.name}: best on {spell(best)} ({percent(scores[best])}), "
            f"worst on {spell(worst)} ({percent(scores[worst])})"
        )
    return "; ".join(parts) + "."


def intensity(models: Sequence[ModelResult]) -> str:
    """How much harder the dim cells are."""
    parts = []
    for model in models:
        levels = model.metrics["by_intensity"]
        if {"positive", "intermediate"} <= set(levels):
            gap = 100 * (levels["positive"]["aca"] - levels["intermediate"]["aca"])
            parts.append(
                f"{model.name}: {abs(gap):.1f} points {'worse' if gap > 0 else 'better'} on intermediate cells"
            )
    return "; ".join(parts) + "." if parts else "Intensity levels are not known for both kinds of cells."


def specimens(models: Sequence[ModelResult]) -> str:
    """Specimens right by majority vote, and the hardest one."""
    parts = []
    for model in models:
        rows = model.metrics["by_specimen"]
        if not rows:
            continue
        hardest = min(rows, key=lambda row: row["accuracy"])
        parts.append(
            f"{model.name}: {sum(row['vote_correct'] for row in rows)} of {len(rows)} specimens right by majority "
            f"vote; hardest is {hardest['specimen_id']} ({spell(hardest['pattern'])}, "
            f"{percent(hardest['accuracy'])} of {hardest['n']} cells)"
        )
    if not parts:
        return "Specimens are unknown in this data set."
    fewest = _fewest_specimens(models[0])
    return "; ".join(parts) + f". Some patterns rest on {fewest} specimen{'' if fewest == 1 else 's'} only."


def _fewest_specimens(model: ModelResult) -> int:
    patterns = [row["pattern"] for row in model.metrics["by_specimen"]]
    return min(patterns.count(pattern) for pattern in set(patterns))


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
    """What answering fewer cells, the surest ones, would give."""
    parts = []
    for model in models:
        point = next(point for point in model.metrics["reject_curve"] if point["coverage"] >= ANSWERED)
        parts.append(
            f"{model.name}: answering only the surest {percent(point['coverage'])} of cells would be right on "
            f"{percent(point['accuracy'])} of them, against {percent(model.metrics['aca'])} of all"
        )
    return "; ".join(parts) + "."


def distribution(content: ReportContent) -> str:
    """How unequal the patterns are in the training cells."""
    counts = {p: n for p, n in content.split["pattern_counts"]["train"].items() if n}
    most, least = max(counts, key=counts.__getitem__), min(counts, key=counts.__getitem__)
    return (
        f"Among the training cells {spell(most)} ({counts[most]}) is {counts[most] / counts[least]:.1f} times "
        f"as frequent as {spell(least)} ({counts[least]})."
    )


def examples(content: ReportContent) -> str:
    """Size of the cells."""
    width, height = content.cells["width"], content.cells["height"]
    return (
        f"Cells are {width.min()} to {width.max()} pixels wide and {height.min()} to {height.max()} high "
        f"(median {width.median():.0f} × {height.median():.0f}); brightness is shown as stored."
    )


def mask(content: ReportContent) -> str:
    """What was masked, and where the masks came from."""
    facts = content.dataset.get("mask")
    if not facts or facts["mode"] == "none":
        return "The images were not masked."
    text = f"Masking ({facts['mode']}) keeps the pixels inside the mask and sets every other pixel to 0"
    return f"{text}; masks: {facts['source']}{_derived(facts['derived'])}."


def _derived(derived: bool | int | None) -> str:
    if not derived:
        return ""
    return ", derived from the images" if derived is True else f", {derived:,} derived from the images"
