"""Sentences of the report's head: warnings, and the verdict. Computed from the numbers, never canned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hep2flow.evaluation.bootstrap import SPECIMEN_BOOTSTRAP
from hep2flow.reporting.data_sentences import duplicates, shared_specimens, shared_test_specimens
from hep2flow.reporting.figures import display_name
from hep2flow.reporting.formatting import interval, percent, significance
from hep2flow.reporting.report_content import Family, ModelResult, ReportContent

SUSPICIOUS_ACA = 0.85  # on the official ICPR 2012 split; published results end near 81 %


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
    found += _other_networks(models)
    for family in content.families:
        if content.comparable_with_paper(family.representative) and family.scores["aca"] > SUSPICIOUS_ACA:
            found.append(
                f"{family.name}: {percent(family.scores['aca'])} is far above the published results on this "
                "test set; look for a leak before believing it."
            )
    if content.split["shared_specimens"] != 0:
        found.append(shared_specimens(content.split["shared_specimens"]))
    if content.leakage and content.leakage["test_specimens"]:
        found.append(f"Leakage: {shared_test_specimens(content.leakage['test_specimens'])}")
    if content.leakage and content.leakage["duplicates"]["count"]:
        found.append(f"Leakage: {duplicates(content.leakage['duplicates'])}")
    return found


def _titles(models: Sequence[ModelResult]) -> str:
    return " and ".join(dict.fromkeys(model.title for model in models))


def _other_networks(models: Sequence[ModelResult]) -> list[str]:
    others = [model.metrics for model in models if not model.metrics["paper_model"]]
    laptop = dict.fromkeys(metrics["network"] for metrics in others if metrics["profile"] == "laptop")
    full = dict.fromkeys(metrics["network"] for metrics in others if metrics["profile"] != "laptop")
    return [
        *([f"Stand-ins, not the paper's models: small networks for a laptop ({', '.join(laptop)})."] if laptop else []),
        *([f"Not one of the paper's two networks: {', '.join(full)}."] if full else []),
    ]


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
    return (
        f"Its lead of {100 * paired['difference']:.1f} points over {second.name} ({percent(second.scores['aca'])}"
        f"{over_seeds(second)}, interval {interval(second.scores['ci95']['aca'])}) {significance(paired)}."
    )


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
        text += (
            f" All cells of {' and of '.join(map(display_name, alone))} are of one specimen each: what another specimen "
            "would do is unknown, and not in the intervals of MCA and macro F1."
        )
    return f"{text} Means over seeds; seeds themselves are not drawn." if content.several_seeds else text
