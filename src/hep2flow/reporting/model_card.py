"""A model card in Markdown: short, and honest about what the numbers are of (Mitchell et al. 2019)."""

from __future__ import annotations

from dataclasses import replace

from hep2flow.reporting import report_tables, sentences
from hep2flow.reporting.provenance import run_line
from hep2flow.reporting.report_content import Family, ModelResult, ReportContent
from hep2flow.reporting.table import escape_markdown as escape


def model_card(content: ReportContent, family: Family) -> str:
    """The card of one model of the report, Markdown; of all its seeds where there are several."""
    model = family.shown
    metrics = model.metrics
    dataset = content.dataset
    only = replace(content, models=family.models, examples={})
    counts = content.split["counts"]
    limits = [*sentences.warnings(only), sentences.per_class([model]), sentences.confusion(model)]
    if metrics["by_intensity"]:
        limits.append(sentences.intensity([model]))
    limits.append(sentences.calibration([model]))
    seeds = f"\n{report_tables.seeds([family]).markdown()}\n" if len(family.models) > 1 else ""
    per_class = report_tables.per_class([model])
    return f"""# {escape(family.models[0].full_name)}

**{sentences.RESEARCH_ONLY}**

## Intended use
Tells the pattern of a single, segmented HEp-2 cell in an indirect immunofluorescence image: {escape(_patterns(model))}.
For research on methods. Not for slides, not for patients, not for other stains or microscopes without evaluating there.

## Data
{escape(dataset["name"])} (digest `{dataset["digest"]}`), split {escape(content.split["protocol"])}: \
{counts["train"]:,} training, {counts["val"]:,} validation, {counts["test"]:,} test cells.
{escape(sentences.mask(only))}
{escape(sentences.leakage(only))}

## Training
{report_tables.trainings(family.models).markdown()}

## Metrics
{report_tables.comparison([family]).markdown()}
{seeds}
{escape(sentences.scores(only))}

{escape(per_class.caption)}:

{per_class.markdown()}

## Limits
{chr(10).join(f"- {escape(limit)}" for limit in limits)}

{run_line(content.run_id)}"""


def _patterns(model: ModelResult) -> str:
    return ", ".join(label.replace("_", " ") for label in model.metrics["labels"])
