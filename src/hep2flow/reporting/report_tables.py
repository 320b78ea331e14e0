"""The report's tables, and published results to hold beside them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hep2flow.evaluation.error_analysis import most_confident_mistakes
from hep2flow.reporting.figures import spell
from hep2flow.reporting.recipe_table import TABLE_1, TABLE_2, value_in
from hep2flow.reporting.report_content import Family, ModelResult, ReportContent
from hep2flow.reporting.sentences import SUBSET_NAMES, cells_of, interval, percent
from hep2flow.reporting.table import Entry, Table, flatten, text_of


@dataclass(frozen=True)
class Published:
    """A published accuracy, in percent.

    method:   as its authors or the contest call it
    accuracy: cell-level accuracy (correct / total)
    basis:    how the figure is known here
    """

    method: str
    accuracy: float
    basis: str


ICPR2012_PUBLISHED = (
    Published("Nosaka, CoALBP (contest's best)", 68.7, "read in a source"),
    Published("Larsen 2014", 71.5, "read in a source"),
    Published("the paper: ConvNeXt-B", 73.9, "the paper's text"),
    Published("Shen 2014", 74.4, "read in a source"),
    Published("Gao 2016, CNN", 74.8, "read in a source"),
    Published("the paper: “custom CoAtNet” = coat_mini", 75.6, "the paper's text"),
    Published("DCR-Net", 80.8, "from the abstract only"),
    Published("Liu 2017, DACN", 81.2, "the paper's text, as state of the art"),
)
I3A_PUBLISHED = (
    Published("Gao 2016, CNN + rotation (64/16/20 random)", 97.24, "read in a source"),
    Published("Rodrigues 2020 (5-fold)", 98.28, "from the abstract only"),
    Published("Xie 2023", 98.36, "from the abstract only"),
    Published("small 3-conv CNN (public 8701/2175/2720 split)", 94.82, "read in a source"),
    Published("AlexNet, pre-trained (public 8701/2175/2720 split)", 94.67, "read in a source"),
)
PAPER = tuple(entry for entry in ICPR2012_PUBLISHED if entry.method.startswith("the paper"))


def number(value: float, text: str | None = None) -> Entry:
    """A plain number."""
    return Entry(f"{value:,}" if text is None else text, float(value))


def share(value: float | None, *, bar: bool = False) -> Entry:
    """A share as percent, with one decimal; the column's heading names the unit."""
    return Entry("–") if value is None else Entry(f"{100 * value:.1f}", value, value if bar else None)


def comparison(families: Sequence[Family]) -> Table:
    """Quantities down, models across: reads on a phone. Where there are several seeds, their mean and deviation."""
    several = any(len(family.models) > 1 for family in families)
    over = "mean ± standard deviation over seeds; " if several else ""

    def row(name: str, show: Callable[[Family], str]) -> list[Entry]:
        return [Entry(name), *(Entry(show(family)) for family in families)]

    def same(show: Callable[[dict[str, Any]], str]) -> Callable[[Family], str]:
        return lambda family: ", ".join(dict.fromkeys(show(model.metrics) for model in family.models))

    def averaged(*path: str) -> Callable[[Family], str]:
        return lambda family: _spread(family.mean(*path), family.deviation(*path))

    def scored(key: str) -> Callable[[Family], str]:
        return lambda family: f"{averaged(key)(family)} ({interval(family.scores['ci95'][key])})"

    rows = [
        row("Network trained", same(lambda m: m["network"])),
        row("Recipe, profile", lambda family: f"{family.file}, {family.models[0].metrics['profile']}"),
        row("Evaluated on", same(lambda m: f"{m['n']:,} {m['subset']} cells{_reservation(m)}")),
        row(f"ACA, correct / total ({over}95 % interval)", scored("aca")),
        row(f"MCA, mean of the recalls ({over}95 % interval)", scored("mca")),
        row(f"Macro F1 ({over}95 % interval)", scored("macro_f1")),
        row("Weighted F1", averaged("weighted_f1")),
        row("ROC AUC, macro", averaged("roc_auc", "macro")),
        row("Specimens right by majority vote", averaged("specimen_vote_accuracy")),
        row("Calibration error (ECE)", averaged("ece")),
        row("Negative log-likelihood, nats", lambda family: _nats(family.mean("nll"), family.deviation("nll"))),
        row("Test-time augmentation", _tta),
        row("Updates", same(lambda m: f"{m['updates']:,}")),
        row("Seeds" if several else "Seed", same(lambda m: str(m["seed"]))),
        row("Training", _timing),
    ]
    return Table("The models side by side", ["", *(family.name for family in families)], rows, sortable=False)


def _spread(value: float | None, deviation: float | None) -> str:
    return percent(value) + ("" if deviation is None else f" ± {100 * deviation:.1f}")


def _nats(value: float | None, deviation: float | None) -> str:
    return f"{value:.3f}" + ("" if deviation is None else f" ± {deviation:.3f}")


def seeds(families: Sequence[Family]) -> Table:
    """Every training of the models that were trained under several seeds."""
    rows = []
    for family in families:
        if len(family.models) == 1:
            continue
        for model in family.models:
            metrics = model.metrics
            rows.append(
                [
                    Entry(f"{model.name}, seed {metrics['seed']}"),
                    share(metrics["aca"], bar=True),
                    Entry(interval(metrics["ci95"]["aca"])),
                    share(metrics["mca"]),
                    share(metrics["macro_f1"]),
                    number(metrics["nll"], f"{metrics['nll']:.3f}"),
                    number(metrics["updates"]),
                ]
            )
    header = ["Training", "ACA, %", "95 % interval of ACA", "MCA, %", "Macro F1, %", "NLL, nats", "Updates"]
    caption = (
        "Every seed. Figures and tables of one training are of the seed of median ACA; the others' lie in the store"
    )
    return Table(caption, header, rows)


def trainings(models: Sequence[ModelResult]) -> Table:
    """What each training began with."""
    rows = [
        [
            Entry(f"{model.metrics['recipe']} ({model.metrics['network']})"),
            number(model.metrics["seed"]),
            Entry(model.metrics["protocol"]),
            Entry(first_weights(model)),
            Entry(text_of(model.training["weights_replaced"])),
        ]
        for model in models
    ]
    header = ["Training", "Seed", "Split", "First weights", "Tensors that did not fit and were made anew"]
    return Table("What each training began with", header, rows)


def first_weights(model: ModelResult) -> str:
    """Where a training's first weights are from."""
    weights = model.training["weights"]
    return "random, trained from scratch" if weights is None else str(weights["origin"])


def _reservation(metrics: Mapping[str, Any]) -> str:
    if metrics["selected_on_test"]:
        return ", selected on them: optimistic"
    return ", chosen on these cells: optimistic" if metrics["subset"] == "validation" else ""


def _tta(family: Family) -> str:
    metrics = family.models[0].metrics
    if not metrics["tta"]:
        return "off"
    if metrics["tta_off"] is None:
        return "on"
    return f"on (without it: ACA {_spread(family.mean('tta_off', 'aca'), family.deviation('tta_off', 'aca'))})"


def _timing(family: Family) -> str:
    seconds, speed = family.mean("timing", "train_seconds"), family.mean("timing", "images_per_second")
    if seconds is None:
        return "–"
    each = " each" if len(family.models) > 1 else ""
    return f"{duration(seconds)}{each}, {speed:,.0f} images/s"


def duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def per_class(models: Sequence[ModelResult]) -> Table:
    """Precision, recall, F1 per pattern and model."""
    header = ["Pattern", "Cells"]
    for letter, model in _lettered(models):
        header += [f"{letter}{name}, %{_mark(model)}" for name in ("precision", "recall", "F1")]
    rows = []
    for label in models[0].metrics["labels"]:
        entries = [Entry(spell(label, 60)), number(models[0].metrics["per_class"][label]["support"])]
        for model in models:
            scores = model.metrics["per_class"].get(label, {})
            entries += [share(scores.get(key), bar=key == "f1") for key in ("precision", "recall", "f1")]
        rows.append(entries)
    return Table(_keyed("Precision, recall and F1 per pattern", models), header, rows)


def by_intensity(models: Sequence[ModelResult]) -> Table:
    """ACA and MCA per fluorescence intensity and model."""
    header = ["Intensity", "Cells"]
    for letter, model in _lettered(models):
        header += [f"{letter}{name}, %{_mark(model)}" for name in ("ACA", "MCA")]
    rows = []
    for level in dict.fromkeys(level for model in models for level in model.metrics["by_intensity"]):
        found = [model.metrics["by_intensity"].get(level) for model in models]
        entries = [Entry(level), number(max(group["n"] for group in found if group))]
        for group in found:
            entries += [share(group[key] if group else None, bar=key == "aca") for key in ("aca", "mca")]
        rows.append(entries)
    return Table(_keyed("Accuracy by fluorescence intensity", models), header, rows)


def by_specimen(models: Sequence[ModelResult]) -> Table:
    """Accuracy and majority vote per specimen and model."""
    header = ["Specimen", "Pattern", "Intensity", "Cells"]
    for letter, model in _lettered(models):
        header += [f"{letter}correct, %{_mark(model)}", f"{letter}majority vote{_mark(model)}"]
    by_model = [{row["specimen_id"]: row for row in model.metrics["by_specimen"]} for model in models]
    known = {specimen: row for rows in reversed(by_model) for specimen, row in rows.items()}
    rows = []
    for specimen in sorted(known, key=lambda name: (len(name), name)):
        facts = known[specimen]
        heading = number(int(specimen), specimen) if specimen.isdecimal() else Entry(specimen)
        entries = [heading, Entry(spell(facts["pattern"])), Entry(facts["intensity"] or "–"), number(facts["n"])]
        for found in by_model:
            row = found.get(specimen)
            entries.append(share(row["accuracy"] if row else None, bar=True))
            entries.append(Entry(f"{'✓' if row['vote_correct'] else '✗'} {spell(row['vote'])}" if row else "–"))
        rows.append(entries)
    return Table(_keyed("Accuracy by specimen", models), header, rows)


def mistakes(model: ModelResult, content: ReportContent) -> Table:
    """The most confident mistakes: where labels, or the model, are worth a second look."""
    wrong = most_confident_mistakes(model.predictions, model.metrics["labels"])
    facts = content.cells.set_index("cell_id")
    rows = []
    for cell in wrong.to_dict("records"):
        where = facts.loc[cell["cell_id"]]
        rows.append(
            [
                Entry(str(cell["cell_id"])),
                Entry(spell(cell["truth"])),
                Entry(spell(cell["predicted"])),
                share(cell["confidence"], bar=True),
                Entry(text_of(where["specimen_id"])),
                Entry(text_of(where["intensity"])),
            ]
        )
    header = ["Cell", "Truth", "Predicted", "Probability, %", "Specimen", "Intensity"]
    return Table(f"The most confident mistakes of {model.name}", header, rows)


def published(content: ReportContent) -> Table:
    """Published accuracies beside ours; what may be compared, and what may not, stands in every row."""
    rows = []
    if content.dataset["name"].startswith("i3a") and not content.dataset["synthetic"]:
        rows += [_published(entry, "same data set, other split") for entry in I3A_PUBLISHED]
        rows += [_published(entry, "other data, not comparable") for entry in PAPER]
    elif content.real_icpr2012:
        rows += [_published(entry, "official test set, 734 cells") for entry in ICPR2012_PUBLISHED]
    else:
        rows += [_published(entry, "other data, not comparable") for entry in PAPER]
    for family in content.families:
        aca = family.scores["aca"]
        cells = f"{cells_of(family.shown)} of {content.dataset['name']}{_reservation(family.shown.metrics)}"
        measured = "measured" if len(family.models) == 1 else f"measured, mean of {len(family.models)} seeds"
        rows.append(
            [Entry(f"this run: {family.name}"), number(100 * aca, f"{100 * aca:.1f}"), Entry(cells), Entry(measured)]
        )
    rows.sort(key=lambda row: row[1].value or 0)
    return Table(
        "Published accuracy at cell level, and this run's", ["Method", "Accuracy, %", "Cells", "Known from"], rows
    )


def _published(entry: Published, cells: str) -> list[Entry]:
    return [Entry(entry.method), number(entry.accuracy, f"{entry.accuracy}"), Entry(cells), Entry(entry.basis)]


def recipes(families: Sequence[Family]) -> Table:
    """Every leaf of every recipe."""
    flat = [flatten(of_all_seeds(family)) for family in families]
    keys = dict.fromkeys(key for recipe in flat for key in recipe)
    rows = [[Entry(key), *(Entry(recipe.get(key, "–")) for recipe in flat)] for key in keys]
    return Table("The complete recipes", ["Choice", *(family.name for family in families)], rows, sortable=False)


def beside_the_paper(families: Sequence[Family]) -> list[Table]:
    """The paper's Tables 1 and 2, row by row, beside what this run's recipes have in their place."""
    header = ["The paper's row", "The paper: ConvNeXt-B", "The paper: custom CoAtNet", "Recipe key"]
    header += [family.name for family in families]
    return [
        Table(
            caption,
            header,
            [
                [Entry(text) for text in (row.topic, row.convnext, row.coat, row.key)]
                + [Entry(_chosen(family, row.key)) for family in families]
                for row in rows
            ],
            sortable=False,
        )
        for caption, rows in (
            ("Ours beside the paper's Table 1: network and augmentation", TABLE_1),
            ("Ours beside the paper's Table 2: training", TABLE_2),
        )
    ]


def _chosen(family: Family, key: str) -> str:
    try:
        return value_in(family.models[0].recipe, key)
    except (KeyError, TypeError):  # a recipe of an earlier version does not have every key of today's
        return "–"


def near_duplicates(content: ReportContent) -> Table:
    """The closest pairs of cells of different subsets."""
    rows = []
    for pair in content.leakage["duplicates"]["pairs"] if content.leakage else []:
        correlation = pair["correlation"]
        entries = [Entry("equal", 1.0) if correlation is None else number(correlation, f"{correlation:.3f}")]
        for cell, subset, pattern in zip(pair["cells"], pair["subsets"], pair["patterns"], strict=True):
            entries += [Entry(cell), Entry(SUBSET_NAMES[subset]), Entry(spell(pattern))]
        rows.append(entries)
    header = ["Correlation", "Cell", "Subset", "Pattern", "Cell", "Subset", "Pattern"]
    return Table("The closest pairs of cells of different subsets", header, rows)


def of_all_seeds(family: Family) -> dict[str, Any]:
    """The recipe that the trainings share, with the seeds of all."""
    recipe = family.models[0].recipe
    return {**recipe, "name": family.file, "train": {**recipe["train"], "seed": family.seeds}}


def _lettered(models: Sequence[ModelResult]) -> list[tuple[str, ModelResult]]:
    """Models with the letter that stands for them in a table's headings; none for a single one."""
    if len(models) == 1:
        return [("", models[0])]
    return [(f"{chr(ord('A') + i)} ", model) for i, model in enumerate(models)]


def _mark(model: ModelResult) -> str:
    return " (validation)" if model.metrics["subset"] == "validation" else ""


def _keyed(caption: str, models: Sequence[ModelResult]) -> str:
    """A caption that names the models behind the letters."""
    return f"{caption}. " + "; ".join(
        f"{letter}{'= ' if letter else ''}{model.name}" for letter, model in _lettered(models)
    )
