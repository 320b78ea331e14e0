"""The report's tables of evaluations, trainings and recipes, and published results beside them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from hep2flow.evaluation.metrics import most_confident_mistakes
from hep2flow.reporting.figures import SUBSET_NAMES, display_name
from hep2flow.reporting.formatting import duration, interval, percent
from hep2flow.reporting.recipe_table import TABLE_1, TABLE_2, value_in
from hep2flow.reporting.report_content import Family, ModelResult, ReportContent
from hep2flow.reporting.sentences import cells_of
from hep2flow.reporting.table_markup import Entry, Table, display_value, flatten, number, percentage, table_row


class Published(NamedTuple):
    """A published cell-level accuracy (correct / total), in percent, and how the figure is known here."""

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


def comparison(families: Sequence[Family]) -> Table:
    """Quantities down, models across: reads on a phone. Where there are several seeds, their mean and deviation."""
    several = any(len(family.models) > 1 for family in families)
    over = f"({'mean ± standard deviation over seeds; ' if several else ''}95 % interval)"

    def column(family: Family) -> dict[str, str]:
        each, ci95 = [model.metrics for model in family.models], family.scores["ci95"]
        spread = family.deviation("nll")
        return {
            "Network trained": _distinct(metrics["network"] for metrics in each),
            "Recipe, profile": f"{family.recipe_name}, {each[0]['profile']}",
            "Evaluated on": _distinct(f"{m['n']:,} {m['subset']} cells{_reservation(m)}" for m in each),
            f"ACA, correct / total {over}": f"{_mean_percent(family, 'aca')} ({interval(ci95['aca'])})",
            f"MCA, mean of the recalls {over}": f"{_mean_percent(family, 'mca')} ({interval(ci95['mca'])})",
            f"Macro F1 {over}": f"{_mean_percent(family, 'macro_f1')} ({interval(ci95['macro_f1'])})",
            "Weighted F1": _mean_percent(family, "weighted_f1"),
            "ROC AUC, macro": _mean_percent(family, "roc_auc", "macro"),
            "Specimens right by majority vote": _mean_percent(family, "specimen_vote_accuracy"),
            "Calibration error (ECE)": _mean_percent(family, "ece"),
            "Negative log-likelihood, nats": f"{family.mean('nll'):.3f}{'' if spread is None else f' ± {spread:.3f}'}",
            "Test-time augmentation": _tta(family),
            "Updates": _distinct(f"{metrics['updates']:,}" for metrics in each),
            "Seeds" if several else "Seed": _distinct(map(str, family.seeds)),
            "Training": _training_time(family),
        }

    columns = [column(family) for family in families]
    rows = [table_row(name, *(column[name] for column in columns)) for name in columns[0]]
    return Table("The models side by side", ["", *(family.name for family in families)], rows, sortable=False)


def _distinct(texts: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(texts))


def _mean_percent(family: Family, *path: str) -> str:
    deviation = family.deviation(*path)
    return percent(family.mean(*path)) + ("" if deviation is None else f" ± {100 * deviation:.1f}")


def _reservation(metrics: Mapping[str, Any]) -> str:
    if metrics["selected_on_test"]:
        return ", selected on them: optimistic"
    return ", chosen on these cells: optimistic" if metrics["subset"] == "validation" else ""


def _tta(family: Family) -> str:
    metrics = family.models[0].metrics
    if not metrics["tta"]:
        return "off"
    return "on" if metrics["tta_off"] is None else f"on (without it: ACA {_mean_percent(family, 'tta_off', 'aca')})"


def _training_time(family: Family) -> str:
    seconds, speed = family.mean("timing", "train_seconds"), family.mean("timing", "images_per_second")
    each = " each" if len(family.models) > 1 else ""
    return "–" if seconds is None else f"{duration(seconds)}{each}, {speed:,.0f} images/s"


def seeds(families: Sequence[Family]) -> Table:
    """Every training of the models that were trained under several seeds."""
    rows = []
    for model in (model for family in families if len(family.models) > 1 for model in family.models):
        metrics = model.metrics
        training = f"{model.name}, seed {metrics['seed']}"
        aca = percentage(metrics["aca"], bar=True), interval(metrics["ci95"]["aca"])
        others = percentage(metrics["mca"]), percentage(metrics["macro_f1"])
        nll, updates = number(metrics["nll"], f"{metrics['nll']:.3f}"), number(metrics["updates"])
        rows.append(table_row(training, *aca, *others, nll, updates))
    header = ["Training", "ACA, %", "95 % interval of ACA", "MCA, %", "Macro F1, %", "NLL, nats", "Updates"]
    shown = "Figures and tables of one training are of the seed of median ACA; the others are in the store"
    return Table(f"Every seed. {shown}", header, rows)


def per_class(models: Sequence[ModelResult]) -> Table:
    """Precision, recall, F1 per pattern and model."""
    rows = []
    for label in models[0].metrics["labels"]:
        entries = table_row(display_name(label, 60), number(models[0].metrics["per_class"][label]["support"]))
        for model in models:
            scores = model.metrics["per_class"].get(label, {})
            entries += [percentage(scores.get(key), bar=key == "f1") for key in ("precision", "recall", "f1")]
        rows.append(entries)
    columns = ["precision, %", "recall, %", "F1, %"]
    return _by_model("Precision, recall and F1 per pattern", ["Pattern", "Cells"], columns, models, rows)


def by_intensity(models: Sequence[ModelResult]) -> Table:
    """ACA and MCA per fluorescence intensity and model."""
    rows = []
    for level in dict.fromkeys(level for model in models for level in model.metrics["by_intensity"]):
        groups = [model.metrics["by_intensity"].get(level, {}) for model in models]
        entries = table_row(level, number(max(group.get("n", 0) for group in groups)))
        entries += [percentage(group.get(key), bar=key == "aca") for group in groups for key in ("aca", "mca")]
        rows.append(entries)
    header = ["Intensity", "Cells"]
    return _by_model("Accuracy by fluorescence intensity", header, ["ACA, %", "MCA, %"], models, rows)


def by_specimen(models: Sequence[ModelResult]) -> Table:
    """Accuracy and majority vote per specimen and model."""
    specimens = [{row["specimen_id"]: row for row in model.metrics["by_specimen"]} for model in models]
    known = {specimen: row for rows in reversed(specimens) for specimen, row in rows.items()}
    table = []
    for specimen, facts in sorted(known.items(), key=lambda item: (len(item[0]), item[0])):
        heading = number(int(specimen), specimen) if specimen.isdecimal() else specimen
        entries = table_row(heading, display_name(facts["pattern"]), facts["intensity"] or "–", number(facts["n"]))
        for rows in specimens:
            row = rows.get(specimen)
            vote = f"{'✓' if row['vote_correct'] else '✗'} {display_name(row['vote'])}" if row else "–"
            entries += table_row(percentage(row["accuracy"] if row else None, bar=True), vote)
        table.append(entries)
    header = ["Specimen", "Pattern", "Intensity", "Cells"]
    return _by_model("Accuracy by specimen", header, ["correct, %", "majority vote"], models, table)


def _by_model(
    caption: str, header: list[str], columns: Sequence[str], models: Sequence[ModelResult], rows: list[list[Entry]]
) -> Table:
    """A table with the same columns for each model, under a letter that the caption explains; none for a single model."""
    letters = [f"{chr(ord('A') + i)} " for i in range(len(models))] if len(models) > 1 else [""]
    for letter, model in zip(letters, models, strict=True):
        validation = " (validation)" if model.metrics["subset"] == "validation" else ""
        header = [*header, *(f"{letter}{column}{validation}" for column in columns)]
        caption += f"{'. ' if model is models[0] else '; '}{letter}{'= ' if letter else ''}{model.name}"
    return Table(caption, header, rows)


def mistakes(model: ModelResult, content: ReportContent) -> Table:
    """The most confident mistakes: where labels, or the model, are worth a second look."""
    wrong = most_confident_mistakes(model.predictions, model.metrics["labels"])
    facts = content.cells.set_index("cell_id")[["specimen_id", "intensity"]]
    rows = []
    for cell, truth, predicted, confidence in wrong.itertuples(index=False):
        names = str(cell), display_name(truth), display_name(predicted)
        rows.append(table_row(*names, percentage(confidence, bar=True), *map(display_value, facts.loc[cell])))
    header = ["Cell", "Truth", "Predicted", "Probability, %", "Specimen", "Intensity"]
    return Table(f"The most confident mistakes of {model.name}", header, rows)


def published(content: ReportContent) -> Table:
    """Published accuracies beside ours; what may be compared, and what may not, stands in every row."""
    entries = [(entry, "other data, not comparable") for entry in PAPER]
    if content.dataset["name"].startswith("i3a") and not content.dataset["synthetic"]:
        entries = [(entry, "same data set, other split") for entry in I3A_PUBLISHED] + entries
    elif content.real_icpr2012:
        entries = [(entry, "official test set, 734 cells") for entry in ICPR2012_PUBLISHED]
    rows = [table_row(e.method, number(e.accuracy, f"{e.accuracy}"), cells, e.basis) for e, cells in entries]
    for family in content.families:
        model, accuracy = family.representative, 100 * family.scores["aca"]
        cells = f"{cells_of(model)} of {content.dataset['name']}{_reservation(model.metrics)}"
        measured = "measured" if len(family.models) == 1 else f"measured, mean of {len(family.models)} seeds"
        rows.append(table_row(f"this run: {family.name}", number(accuracy, f"{accuracy:.1f}"), cells, measured))
    rows.sort(key=lambda row: row[1].value or 0)
    header = ["Method", "Accuracy, %", "Cells", "Known from"]
    return Table("Published accuracy at cell level, and this run's", header, rows)


def near_duplicates(content: ReportContent) -> Table:
    """The closest pairs of cells of different subsets."""
    rows = []
    for pair in content.leakage["duplicates"]["pairs"] if content.leakage else []:
        correlation = pair["correlation"]
        entries = [Entry("equal", 1.0) if correlation is None else number(correlation, f"{correlation:.3f}")]
        for cell, subset, pattern in zip(pair["cells"], pair["subsets"], pair["patterns"], strict=True):
            entries += table_row(cell, SUBSET_NAMES[subset], display_name(pattern))
        rows.append(entries)
    header = ["Correlation", "Cell", "Subset", "Pattern", "Cell", "Subset", "Pattern"]
    return Table("The closest pairs of cells of different subsets", header, rows)


def trainings(models: Sequence[ModelResult]) -> Table:
    """The initial weights of each training."""
    rows = []
    for model in models:
        metrics, weights = model.metrics, model.training["weights"]
        training, seed = f"{metrics['recipe']} ({metrics['network']})", number(metrics["seed"])
        origin = "random, trained from scratch" if weights is None else str(weights["origin"])
        replaced = display_value(model.training["weights_replaced"])
        rows.append(table_row(training, seed, metrics["protocol"], origin, replaced))
    header = ["Training", "Seed", "Split", "Initial weights", "Tensors that did not fit and were re-initialised"]
    return Table("Initial weights of each training", header, rows)


def recipes(families: Sequence[Family]) -> Table:
    """Every leaf of every recipe."""
    flat = [flatten(family.recipe) for family in families]
    keys = dict.fromkeys(key for recipe in flat for key in recipe)
    rows = [table_row(key, *(recipe.get(key, "–") for recipe in flat)) for key in keys]
    return Table("The complete recipes", ["Choice", *(family.name for family in families)], rows, sortable=False)


def beside_the_paper(families: Sequence[Family]) -> list[Table]:
    """The paper's Tables 1 and 2, row by row, beside what this run's recipes have in their place."""
    header = ["The paper's row", "The paper: ConvNeXt-B", "The paper: custom CoAtNet", "Recipe key"]
    header += [family.name for family in families]
    tables = []
    for caption, paper_rows in (("Table 1: network and augmentation", TABLE_1), ("Table 2: training", TABLE_2)):
        rows = [table_row(*row, *(_recipe_value(family, row.key) for family in families)) for row in paper_rows]
        tables.append(Table(f"Ours beside the paper's {caption}", header, rows, sortable=False))
    return tables


def _recipe_value(family: Family, key: str) -> str:
    try:
        return value_in(family.models[0].recipe, key)
    except (KeyError, TypeError):  # recipes of earlier versions lack some of today's keys
        return "–"
