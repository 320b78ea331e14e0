"""The report: one self-contained HTML page, its figures as files, and a summary in Markdown."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from markupsafe import Markup
from matplotlib.figure import Figure

from hep2flow.reporting import comparison, figures, formatting, galleries, report_tables, sentences, sweep_section
from hep2flow.reporting.model_card import model_card
from hep2flow.reporting.paper_claims import claims
from hep2flow.reporting.provenance import run_fragments, templates
from hep2flow.reporting.report_content import ModelResult, ReportContent
from hep2flow.reporting.table_markup import escape_markdown as escape
from hep2flow.reporting.table_markup import facts_table
from hep2flow.selected_on_test import OPTIMISTIC_WARNING

HERE = Path(__file__).parent
PAPER_BATCHES = {"convnext-b": 6, "coat-mini": 7}  # recipe -> the paper's figure of its augmented batch


@dataclass(frozen=True)
class Illustration:
    """A figure of the page: file name, caption, and the sentence that interprets it."""

    name: str
    caption: str
    sentence: str
    figure: Figure

    @cached_property
    def document(self) -> str:
        """The figure as an SVG document."""
        return figures.to_svg(self.figure)

    @property
    def svg(self) -> Markup:
        """Inline SVG in the page's text colour."""
        return Markup(inline_svg(self.document, self.name))  # noqa: S704  matplotlib escapes its texts


def render(content: ReportContent) -> str:
    """The page: one self-contained HTML document that loads nothing."""
    return _page(content, illustrations(content))


def write(content: ReportContent, folder: Path) -> None:
    """Write ``index.html``, ``figures/*.svg``, ``figures/*.png``, ``summary.md`` and ``model-card-*.md`` to ``folder``."""
    drawn = illustrations(content)
    folder.mkdir(parents=True, exist_ok=True)
    for illustration in drawn.values():
        figures.save(illustration.figure, folder / "figures", illustration.name, illustration.document)
    (folder / "summary.md").write_text(summary(content), encoding="utf-8")
    names = _file_names([family.recipe_name for family in content.families])
    for family, name in zip(content.families, names, strict=True):
        (folder / f"model-card-{name}.md").write_text(model_card(content, family), encoding="utf-8")
    (folder / "index.html").write_text(_page(content, drawn), encoding="utf-8")


def summary(content: ReportContent) -> str:
    """Warnings, verdict, comparison and sweeps in Markdown."""
    warnings = [*sentences.warnings(content), formatting.RESEARCH_ONLY]
    sweeps = [f"Sweep of {sweep.title}. {' '.join(sweep_section.verdict(sweep))}" for sweep in content.sweeps]
    judged = [f"- {claim.words}: {claim.verdict}. {claim.reason}" for claim in claims(content)]
    paragraphs = [
        f"# {escape(title(content))}",
        "\n".join(f"> **{escape(warning)}**  " for warning in warnings),
        escape(" ".join(sentences.verdict(content))),
        report_tables.comparison(content.families).markdown(),
        *([report_tables.seeds(content.families).markdown()] if content.several_seeds else []),
        *map(escape, sweeps),
        "The paper's claims:",
        "\n".join(map(escape, judged)),
        f"Split: {escape(content.split['protocol'])}. {escape(sentences.leakage(content))}\n",
    ]
    return "\n\n".join(paragraphs)


def title(content: ReportContent) -> str:
    """The page's title, with the data set and every reservation that belongs to all of its numbers."""
    synthetic = "synthetic data" if content.dataset["synthetic"] else ""
    words = synthetic, "validation" if _subset(content) else "", _reservation(content)
    return ", ".join([f"HEp-2 classification: {content.dataset['name']}", *filter(None, words)])


def illustrations(content: ReportContent) -> dict[str, Illustration]:
    """Every figure of the report by its file name, in reading order."""
    sections = (_score_figures, _model_figures, _data_figures, _sweep_figures)
    return {drawn.name: drawn for section in sections for drawn in section(content)}


def _score_figures(content: ReportContent) -> Iterator[Illustration]:
    families, where, reservation = content.families, _subset(content), _reservation(content)
    scores = {family.name: family.scores for family in families}
    seeds = {family.name: [model.metrics for model in family.models] for family in families if len(family.models) > 1}
    _, majority = sentences.majority_class(content.ranked[0].metrics)
    figure = figures.score_intervals(scores, majority, seeds, reservation)
    caption = f"Scores and their 95 % intervals{where}"
    yield Illustration("scores", caption, sentences.interval_basis(content), figure)
    figure = figures.per_class_f1(_metrics_by_name(content.ranked), reservation)
    yield Illustration("f1", f"F1 per pattern{where}", sentences.per_class(content.ranked), figure)
    figure = figures.reliability_diagram(_metrics_by_name(content.ranked), reservation)
    yield Illustration("reliability", f"Calibration{where}", sentences.calibration(content.ranked), figure)
    # Evaluations of earlier versions have no reject curve.
    if models := [model for model in content.ranked if "reject_curve" in model.metrics]:
        figure = figures.reject_curve(_metrics_by_name(models), reservation)
        yield Illustration("reject", f"Accuracy on the surest cells{where}", sentences.reject(models), figure)


def _model_figures(content: ReportContent) -> Iterator[Illustration]:
    """Confusion matrix, mistakes, learning curves and augmented training cells of each model."""
    files = _file_names([model.metrics["recipe"] for model in content.ranked])
    for file, model in zip(files, content.ranked, strict=True):
        caption = f"Confusion matrix: {model.name}{_paper_figure(_paper_matrix(model))}"
        figure = figures.confusion_matrix(model.metrics, model.full_name)
        yield Illustration(f"confusion-{file}", caption, sentences.confusion(model), figure)
        if model.mistakes is not None and len(model.mistakes):
            bits, sentence = content.dataset["bits"], sentences.mistakes(model, content.cells)
            figure = galleries.mistakes(model.mistakes, content.originals, content.cells, bits, model.full_name)
            yield Illustration(f"mistakes-{file}", f"The most confident mistakes: {model.name}", sentence, figure)
        if model.history:
            figure = figures.learning_curves(model.history, model.full_name)
            yield Illustration(f"learning-{file}", f"Learning curves: {model.name}", sentences.learning(model), figure)
        if model.batch is not None:
            caption = f"Augmented training cells: {model.name}{_paper_figure(PAPER_BATCHES.get(model.family))}"
            figure = galleries.augmented(model.batch, _reservation(content))
            yield Illustration(f"batch-{file}", caption, sentences.augmentations(model), figure)


def _data_figures(content: ReportContent) -> Iterator[Illustration]:
    title, bits = _reservation(content), content.dataset["bits"]
    figure = figures.class_distribution(content.split["pattern_counts"], title)
    caption = f"Cells per pattern and subset{_paper_figure(2)}"
    yield Illustration("distribution", caption, sentences.class_balance(content), figure)
    if any(content.examples.values()):
        figure = figures.pattern_examples(content.examples, bits, title)
        caption = f"Examples of the patterns{_paper_figure(1)}"
        yield Illustration("patterns", caption, sentences.cell_sizes(content), figure)
        figure = figures.masking(content.examples, bits, title)
        yield Illustration("masking", f"Masking{_paper_figure(5)}", sentences.masking(content), figure)


def _sweep_figures(content: ReportContent) -> Iterator[Illustration]:
    for sweep, file in zip(content.sweeps, _sweep_files(content), strict=True):
        for kind, drawn in sweep_section.sweep_figures(sweep).items():
            yield Illustration(f"sweep-{kind}-{file}", *drawn)


def _metrics_by_name(models: Sequence[ModelResult]) -> dict[str, dict[str, Any]]:
    return {model.name: model.metrics for model in models}


def _subset(content: ReportContent) -> str:
    return " (validation)" if any(model.metrics["subset"] == "validation" for model in content.models) else ""


def _reservation(content: ReportContent) -> str:
    """The title of figures that name no model."""
    return OPTIMISTIC_WARNING if content.selected_on_test else ""


def _paper_figure(figure: int | None) -> str:
    """The paper's figure that is this one's counterpart, for a caption."""
    return "" if figure is None else f" (compare the paper's Figure {figure})"


def _paper_matrix(model: ModelResult) -> int | None:
    """The paper's confusion matrix of the same recipe: of whole-train it shows the second recipe's only."""
    if model.metrics["protocol"] == "whole-train":
        return 9 if model.family == "coat-mini" else None
    return 8 if model.family in PAPER_BATCHES else None


def _sweep_files(content: ReportContent) -> list[str]:
    return _file_names([sweep.recipe["name"] for sweep in content.sweeps])


def _file_names(recipes: list[str]) -> list[str]:
    """A short, safe and unique name for each recipe's name."""
    slugs = [re.sub(r"[^a-z0-9]+", "-", recipe.lower()).strip("-") or "model" for recipe in recipes]
    return [slug if slugs.count(slug) == 1 else f"{slug}-{i + 1}" for i, slug in enumerate(slugs)]


def inline_svg(document: str, name: str) -> str:
    """An SVG document as an element of a page: ids made unique by ``name``, colours of text and background the page's."""
    body = document[document.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>\s*", "", body, flags=re.DOTALL)
    body = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', body)
    body = re.sub(r'href="#([^"]+)"', rf'href="#{name}-\1"', body)
    body = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", body)
    body = body.replace(figures.INK, "currentColor").replace(figures.PAGE, "var(--page)")
    return body.replace("'DejaVu Sans', sans-serif", "inherit")


def _page(content: ReportContent, drawn: dict[str, Illustration]) -> str:
    # The template calls the modules' functions of sentences and tables, each where it stands on the page.
    split = {key: value for key, value in content.split.items() if key != "pattern_counts"}
    dataset = {key: value for key, value in content.dataset.items() if key not in ("notes", "counts")}
    values = {
        "title": title(content),
        "content": content,
        "models": content.ranked,
        "families": content.families,
        "validation": _subset(content),
        "illustrations": drawn,
        "formatting": formatting,
        "sentences": sentences,
        "tables": report_tables,
        "split": facts_table("The split", split),
        "dataset": facts_table("The data set", dataset),
        "lead": content.lead and comparison.compare(content.families[0], content.families[1], content.lead),
        "comparison": comparison,
        "claims": claims(content),
        "sweeps": list(map(sweep_section.sweep_section, content.sweeps, _sweep_files(content))),
        "run": run_fragments(content.run_id, content.provenance),
        "style": Markup((HERE / "page.css").read_text(encoding="utf-8")),  # noqa: S704  our own file
        "script": Markup((HERE / "page.js").read_text(encoding="utf-8")),  # noqa: S704  our own file
    }
    page = templates().get_template("page.html.j2").render(values)
    return re.sub(r"(\d) %", "\\1\N{NO-BREAK SPACE}%", page)
