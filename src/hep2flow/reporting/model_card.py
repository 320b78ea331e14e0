"""A model card in Markdown: short, and honest about what the numbers are of (Mitchell et al. 2019)."""

from dataclasses import replace

from hep2flow.reporting import report_tables, sentences
from hep2flow.reporting.formatting import RESEARCH_ONLY
from hep2flow.reporting.provenance import run_line
from hep2flow.reporting.report_content import Family, ReportContent
from hep2flow.reporting.table_markup import escape_markdown as escape


def model_card(content: ReportContent, family: Family) -> str:
    """The card of one model of the report, Markdown; of all its seeds where there are several."""
    model = family.representative
    dataset, counts = content.dataset, content.split["counts"]
    own = replace(content, models=family.models, examples={})
    limits = [
        *sentences.warnings(own),
        sentences.per_class([model]),
        sentences.confusion(model),
        *([sentences.intensity([model])] if model.metrics["by_intensity"] else []),
        sentences.calibration([model]),
    ]
    patterns = ", ".join(label.replace("_", " ") for label in model.metrics["labels"])
    seeds = f"\n{report_tables.seeds([family]).markdown()}\n" if len(family.models) > 1 else ""
    per_class = report_tables.per_class([model])
    return f"""# {escape(family.models[0].full_name)}

**{RESEARCH_ONLY}**

## Intended use
Classifies the pattern of a single, segmented HEp-2 cell in an indirect immunofluorescence image: {escape(patterns)}.
For research on methods. Not for slides, not for patients, not for other stains or microscopes without evaluating there.

## Data
{escape(dataset["name"])} (digest `{dataset["digest"]}`), split {escape(content.split["protocol"])}: \
{counts["train"]:,} training, {counts["val"]:,} validation, {counts["test"]:,} test cells.
{escape(sentences.masking(own))}
{escape(sentences.leakage(own))}

## Training
{report_tables.trainings(family.models).markdown()}

## Metrics
{report_tables.comparison([family]).markdown()}
{seeds}
{escape(sentences.interval_basis(own))}

{escape(per_class.caption)}:

{per_class.markdown()}

## Limits
{chr(10).join(f"- {escape(limit)}" for limit in limits)}

{run_line(content.run_id)}"""
