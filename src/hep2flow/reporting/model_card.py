"""A model card in Markdown: short, and honest about what the numbers are of (Mitchell et al. 2019)."""

from __future__ import annotations

from hep2flow.reporting import readings, tables
from hep2flow.reporting.content import ModelResult, ReportContent


def model_card(content: ReportContent, model: ModelResult) -> str:
    """The card of one model of the report, Markdown."""
    metrics = model.metrics
    dataset = content.dataset
    escape = tables.escape_markdown
    only = ReportContent(
        run_id=content.run_id,
        dataset=dataset,
        split=content.split,
        models=[model],
        cells=content.cells,
        examples={},
        provenance=content.provenance,
    )
    counts = content.split["counts"]
    limits = [*readings.warnings(only), readings.per_class([model]), readings.confusion(model)]
    if metrics["by_intensity"]:
        limits.append(readings.intensity([model]))
    limits.append(readings.calibration([model]))
    return f"""# {escape(model.name)}

**{readings.RESEARCH_ONLY}**

## Intended use
Tells the pattern of a single, segmented HEp-2 cell in an indirect immunofluorescence image: {escape(_patterns(model))}.
For research on methods. Not for slides, not for patients, not for other stains or microscopes without evaluating there.

## Data
{escape(dataset["name"])} (digest `{dataset["digest"]}`), split {escape(content.split["protocol"])}: \
{counts["train"]:,} training, {counts["val"]:,} validation, {counts["test"]:,} test cells.
{escape(readings.mask(only))}
{escape(readings.leakage(only))}

## Metrics
{tables.comparison([model]).markdown()}

Intervals: {metrics["ci95_method"]}.

{tables.per_class([model]).markdown()}

## Limits
{chr(10).join(f"- {escape(limit)}" for limit in limits)}

Run `{content.run_id}`.
"""


def _patterns(model: ModelResult) -> str:
    return ", ".join(label.replace("_", " ") for label in model.metrics["labels"])
