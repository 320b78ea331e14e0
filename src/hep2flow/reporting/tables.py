"""The report's tables, and published results to hold beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hep2flow.reporting.content import ModelResult, ReportContent
from hep2flow.reporting.figures import spell
from hep2flow.reporting.readings import cells_of, interval, percent

MISTAKES = 12


@dataclass(frozen=True)
class Entry:
    """One field of a table.

    text:  what is shown
    value: the number behind it, by which the column sorts; None for words
    bar:   share in [0, 1] drawn as a bar behind the number; None for no bar
    """

    text: str
    value: float | None = None
    bar: float | None = None


@dataclass(frozen=True)
class Table:
    """A table of the page: the first field of each row is the row's heading."""

    caption: str
    header: list[str]
    rows: list[list[Entry]] = field(default_factory=list)
    sortable: bool = True

    def numeric(self, column: int) -> bool:
        """Whether a column holds numbers, dashes aside."""
        entries = [row[column] for row in self.rows if row[column].text != "–"]
        return bool(entries) and all(entry.value is not None for entry in entries)

    def markdown(self) -> str:
        """The table in Markdown."""
        lines = [self.header, ["---"] * len(self.header), *([entry.text for entry in row] for row in self.rows)]
        return "\n".join("| " + " | ".join(escape_markdown(text) for text in line) + " |" for line in lines)


def escape_markdown(text: str) -> str:
    """Data inside Markdown: no cell borders, no HTML, no line breaks."""
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


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


def comparison(models: Sequence[ModelResult]) -> Table:
    """Quantities down, models across: reads on a phone."""

    def row(name: str, show: Any) -> list[Entry]:
        return [Entry(name), *(Entry(show(model.metrics)) for model in models)]

    def scored(key: str) -> Any:
        return lambda m: f"{percent(m[key])} ({interval(m['ci95'][key])})"

    rows = [
        row("Network trained", lambda m: m["network"]),
        row("Recipe, profile", lambda m: f"{m['recipe']}, {m['profile']}"),
        row("Evaluated on", lambda m: f"{m['n']:,} {m['subset']} cells{_reservation(m)}"),
        row("ACA, correct / total (95 % interval)", scored("aca")),
        row("MCA, mean of the recalls (95 % interval)", scored("mca")),
        row("Macro F1 (95 % interval)", scored("macro_f1")),
        row("Weighted F1", lambda m: percent(m["weighted_f1"])),
        row("ROC AUC, macro", lambda m: percent(m["roc_auc"]["macro"])),
        row("Specimens right by majority vote", lambda m: percent(m["specimen_vote_accuracy"])),
        row("Calibration error (ECE)", lambda m: percent(m["ece"])),
        row("Negative log-likelihood, nats", lambda m: f"{m['nll']:.3f}"),
        row("Test-time augmentation", lambda m: _tta(m)),
        row("Updates", lambda m: f"{m['updates']:,}"),
        row("Seed", lambda m: str(m["seed"])),
        row("Training", lambda m: _timing(m["timing"])),
    ]
    return Table("The models side by side", ["", *(model.name for model in models)], rows, sortable=False)


def _reservation(metrics: Mapping[str, Any]) -> str:
    if metrics["selected_on_test"]:
        return ", selected on them: optimistic"
    return ", chosen on these cells: optimistic" if metrics["subset"] == "validation" else ""


def _tta(metrics: Mapping[str, Any]) -> str:
    off = metrics["tta_off"]
    if not metrics["tta"]:
        return "off"
    return "on" if off is None else f"on (without it: ACA {percent(off['aca'])})"


def _timing(timing: Mapping[str, Any]) -> str:
    seconds, speed = timing["train_seconds"], timing["images_per_second"]
    return "–" if seconds is None else f"{_duration(seconds)}, {speed:,.0f} images/s"


def _duration(seconds: float) -> str:
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
    wrong = model.predictions[model.predictions["truth"] != model.predictions["predicted"]]
    labels = model.metrics["labels"]
    confidence = wrong[[f"p_{label}" for label in labels]].max(axis=1)
    wrong = wrong.assign(confidence=confidence).sort_values(["confidence", "cell_id"], ascending=[False, True])
    facts = content.cells.set_index("cell_id")
    rows = []
    for cell in wrong.head(MISTAKES).to_dict("records"):
        where = facts.loc[cell["cell_id"]]
        rows.append(
            [
                Entry(str(cell["cell_id"])),
                Entry(spell(cell["truth"])),
                Entry(spell(cell["predicted"])),
                share(cell["confidence"], bar=True),
                Entry(_text(where["specimen_id"])),
                Entry(_text(where["intensity"])),
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
    for model in content.models:
        aca = model.metrics["aca"]
        cells = f"{cells_of(model)} of {content.dataset['name']}{_reservation(model.metrics)}"
        rows.append(
            [Entry(f"this run: {model.name}"), number(100 * aca, f"{100 * aca:.1f}"), Entry(cells), Entry("measured")]
        )
    rows.sort(key=lambda row: row[1].value or 0)
    return Table(
        "Published accuracy at cell level, and this run's", ["Method", "Accuracy, %", "Cells", "Known from"], rows
    )


def _published(entry: Published, cells: str) -> list[Entry]:
    return [Entry(entry.method), number(entry.accuracy, f"{entry.accuracy}"), Entry(cells), Entry(entry.basis)]


def recipes(models: Sequence[ModelResult]) -> Table:
    """Every leaf of every recipe."""
    flat = [flatten(model.recipe) for model in models]
    keys = dict.fromkeys(key for recipe in flat for key in recipe)
    rows = [[Entry(key), *(Entry(recipe.get(key, "–")) for recipe in flat)] for key in keys]
    return Table("The complete recipes", ["Choice", *(model.name for model in models)], rows, sortable=False)


def facts(caption: str, nested: Mapping[str, Any]) -> Table:
    """A nested mapping as a table of two columns."""
    return Table(caption, ["", "Value"], [[Entry(k), Entry(v)] for k, v in flatten(nested).items()], sortable=False)


def flatten(nested: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Leaves of nested mappings by their dotted path."""
    leaves: dict[str, str] = {}
    for key, value in nested.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            leaves |= flatten(value, f"{path}.")
        else:
            leaves[path] = _text(value)
    return leaves


def _text(value: Any) -> str:
    if value is None or value != value:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return ", ".join(_text(item) for item in value) or "–"
    return str(value) if value != {} else "–"


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
