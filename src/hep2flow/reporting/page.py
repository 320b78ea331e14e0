"""The report: one self-contained HTML page, its figures as files, and a summary in Markdown."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from markupsafe import Markup
from matplotlib.figure import Figure

from hep2flow.reporting import (
    figures,
    galleries,
    paper_claims,
    report_tables,
    run_comparison,
    sentences,
    sweep_section,
    sweep_sentences,
)
from hep2flow.reporting.figures import reject_curve
from hep2flow.reporting.model_card import model_card
from hep2flow.reporting.provenance import of_this_run, templates
from hep2flow.reporting.report_content import ModelResult, ReportContent
from hep2flow.reporting.table import escape_markdown, facts
from hep2flow.selected_on_test import OPTIMISTIC

HERE = Path(__file__).parent
PAPER_BATCHES = {"convnext-b": 6, "coat-mini": 7}  # recipe -> the paper's figure of its augmented batch


@dataclass(frozen=True)
class Illustration:
    """A figure of the page: file name, caption, and the sentence that reads it."""

    name: str
    caption: str
    reading: str
    figure: Figure

    @cached_property
    def drawn(self) -> str:
        """The figure as an SVG document."""
        return figures.svg(self.figure)

    @property
    def svg(self) -> Markup:
        """Inline SVG in the page's text colour."""
        return Markup(inline(self.drawn, self.name))  # noqa: S704  matplotlib escapes its texts


def render(content: ReportContent) -> str:
    """The page: one self-contained HTML document that loads nothing."""
    return _page(content, illustrations(content))


def write(content: ReportContent, folder: Path) -> None:
    """Write ``index.html``, ``figures/*.svg``, ``figures/*.png``, ``summary.md`` and ``model-card-*.md`` into ``folder``."""
    shown = illustrations(content)
    folder.mkdir(parents=True, exist_ok=True)
    for illustration in shown.values():
        figures.save(illustration.figure, folder / "figures", illustration.name, illustration.drawn)
    (folder / "summary.md").write_text(summary(content), encoding="utf-8")
    for family, file in zip(content.families, _file_names([family.file for family in content.families]), strict=True):
        (folder / f"model-card-{file}.md").write_text(model_card(content, family), encoding="utf-8")
    (folder / "index.html").write_text(_page(content, shown), encoding="utf-8")


def summary(content: ReportContent) -> str:
    """Warnings, verdict, comparison and sweeps in Markdown."""
    escape = escape_markdown
    return "\n\n".join(
        [
            f"# {escape(title(content))}",
            "\n".join(
                f"> **{escape(warning)}**  " for warning in [*sentences.warnings(content), sentences.RESEARCH_ONLY]
            ),
            escape(" ".join(sentences.verdict(content))),
            report_tables.comparison(content.families).markdown(),
            *([report_tables.seeds(content.families).markdown()] if content.several_seeds else []),
            *(
                escape(f"Sweep of {sweep.title}. {' '.join(sweep_sentences.verdict(sweep))}")
                for sweep in content.sweeps
            ),
            "The paper's claims:",
            "\n".join(
                escape(f"- {claim.words}: {claim.verdict}. {claim.reason}") for claim in paper_claims.claims(content)
            ),
            f"Split: {escape(content.split['protocol'])}. {escape(sentences.leakage(content))}\n",
        ]
    )


def title(content: ReportContent) -> str:
    """The page's title, with the data set and every reservation that belongs to all of its numbers."""
    words = [f"HEp-2 classification: {content.dataset['name']}"]
    if content.dataset["synthetic"]:
        words.append("synthetic data")
    if any(model.metrics["subset"] == "validation" for model in content.models):
        words.append("validation")
    if content.selected_on_test:
        words.append(OPTIMISTIC)
    return ", ".join(words)


def illustrations(content: ReportContent) -> dict[str, Illustration]:
    """Every figure of the report by its file name, in reading order."""
    models, families = content.ranked, content.families
    named = {model.name: model.metrics for model in models}
    title = OPTIMISTIC if content.selected_on_test else ""
    files = _file_names([model.metrics["recipe"] for model in models])
    suffix = " (validation)" if any(model.metrics["subset"] == "validation" for model in models) else ""
    shown = [
        Illustration(
            "scores",
            f"Scores and their 95 % intervals{suffix}",
            sentences.scores(content),
            figures.score_intervals(
                {family.name: family.scores for family in families},
                sentences.chance(models[0].metrics)[1],
                {family.name: [m.metrics for m in family.models] for family in families if len(family.models) > 1},
                title,
            ),
        ),
        Illustration("f1", f"F1 per pattern{suffix}", sentences.per_class(models), figures.per_class_f1(named, title)),
    ]
    for model, file in zip(models, files, strict=True):
        shown.append(
            Illustration(
                f"confusion-{file}",
                f"Confusion matrix: {model.name}{_compare(_paper_matrix(model))}",
                sentences.confusion(model),
                figures.confusion_matrix(model.metrics, model.full_name),
            )
        )
    for model, file in zip(models, files, strict=True):
        if model.mistakes is not None and len(model.mistakes):
            shown.append(
                Illustration(
                    f"mistakes-{file}",
                    f"The most confident mistakes: {model.name}",
                    sentences.mistakes(model, content.cells),
                    galleries.mistakes(
                        model.mistakes, content.originals, content.cells, content.dataset["bits"], model.full_name
                    ),
                )
            )
    for model, file in zip(models, files, strict=True):
        if model.history:
            shown.append(
                Illustration(
                    f"learning-{file}",
                    f"Learning curves: {model.name}",
                    sentences.learning(model),
                    figures.learning_curves(model.history, model.full_name),
                )
            )
    shown.append(
        Illustration(
            "reliability",
            f"Calibration{suffix}",
            sentences.calibration(models),
            figures.reliability_diagram(named, title),
        )
    )
    sure = [model for model in models if "reject_curve" in model.metrics]  # evaluations of earlier versions have none
    if sure:
        shown.append(
            Illustration(
                "reject",
                f"Accuracy on the surest cells{suffix}",
                sentences.reject(sure),
                reject_curve({model.name: model.metrics for model in sure}, title),
            )
        )
    shown.append(
        Illustration(
            "distribution",
            f"Cells per pattern and subset{_compare(2)}",
            sentences.distribution(content),
            figures.class_distribution(content.split["pattern_counts"], title),
        )
    )
    if any(content.examples.values()):
        bits = content.dataset["bits"]
        shown.append(
            Illustration(
                "patterns",
                f"Examples of the patterns{_compare(1)}",
                sentences.examples(content),
                figures.pattern_examples(content.examples, bits, title),
            )
        )
        shown.append(
            Illustration(
                "masking",
                f"Masking{_compare(5)}",
                sentences.mask(content),
                figures.masking(content.examples, bits, title),
            )
        )
    for model, file in zip(models, files, strict=True):
        if model.batch is not None:
            shown.append(
                Illustration(
                    f"batch-{file}",
                    f"Augmented training cells: {model.name}{_compare(PAPER_BATCHES.get(model.family))}",
                    sentences.augmentations(model),
                    galleries.augmented(model.batch, title),
                )
            )
    for sweep, file in zip(content.sweeps, _sweep_files(content), strict=True):
        for kind, drawing in sweep_section.drawings(sweep).items():
            shown.append(Illustration(f"sweep-{kind}-{file}", *drawing))
    return {illustration.name: illustration for illustration in shown}


def inline(svg: str, name: str) -> str:
    """An SVG document as an element of a page: ids made unique by ``name``, its colours of ink and paper the page's."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>\s*", "", body, flags=re.DOTALL)
    body = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', body)
    body = re.sub(r'href="#([^"]+)"', rf'href="#{name}-\1"', body)
    body = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", body)
    body = body.replace(figures.INK, "currentColor").replace(figures.PAGE, "var(--page)")
    return body.replace("'DejaVu Sans', sans-serif", "inherit")


def _compare(figure: int | None) -> str:
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


def _page(content: ReportContent, shown: dict[str, Illustration]) -> str:
    models, families = content.ranked, content.families
    lead = run_comparison.compare(families[0], families[1], content.lead) if content.lead else None
    page = (
        templates()
        .get_template("page.html.j2")
        .render(
            title=title(content),
            content=content,
            models=models,
            best=families[0],
            over_seeds=sentences.over_seeds,
            percent=sentences.percent,
            interval=sentences.interval,
            warnings=sentences.warnings(content),
            research_only=sentences.RESEARCH_ONLY,
            verdict=sentences.verdict(content),
            leakage=sentences.leakage(content),
            mask=sentences.mask(content),
            intensity=sentences.intensity(models),
            specimens=sentences.specimens(models),
            comparison=report_tables.comparison(families),
            lead=lead and run_comparison.table(lead),
            lead_remarks=lead and run_comparison.remarks(lead),
            seeds=report_tables.seeds(families),
            per_class=report_tables.per_class(models),
            by_intensity=report_tables.by_intensity(models),
            by_specimen=report_tables.by_specimen(models),
            mistakes=[report_tables.mistakes(model, content) for model in models],
            claims=paper_claims.claims(content),
            published=report_tables.published(content),
            near_duplicates=report_tables.near_duplicates(content),
            beside_the_paper=report_tables.beside_the_paper(families),
            recipes=report_tables.recipes(families),
            split=facts("The split", {key: value for key, value in content.split.items() if key != "pattern_counts"}),
            dataset=facts("The data set", {k: v for k, v in content.dataset.items() if k not in ("notes", "counts")}),
            trainings=report_tables.trainings(content.models),
            of_this_run=of_this_run(content.run_id, content.provenance),
            shown=shown,
            sweeps=[
                sweep_section.section(sweep, file)
                for sweep, file in zip(content.sweeps, _sweep_files(content), strict=True)
            ],
            style=Markup((HERE / "page.css").read_text(encoding="utf-8")),  # noqa: S704  our own file
            script=Markup((HERE / "page.js").read_text(encoding="utf-8")),  # noqa: S704  our own file
        )
    )
    return re.sub(r"(\d) %", "\\1\N{NO-BREAK SPACE}%", page)
