"""The fragments of a report that name its run, so that another run of the same evaluations can take the report over."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from hep2flow.reporting.table_markup import facts_table


def templates() -> Environment:
    """The page's templates."""
    files = FileSystemLoader(Path(__file__).parent)
    return Environment(loader=files, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)


def run_fragments(run_id: str, provenance: Mapping[str, Any]) -> dict[str, Markup]:
    """The page's fragments on its run (``name``, ``facts``), each between comments by which it is found again."""
    macros: Any = templates().get_template("table.html.j2").module
    fragments = {"name": escape(run_id), "facts": macros.table(facts_table("Where this came from", provenance))}
    return {name: Markup(f"<!-- run {name} -->{text}<!-- end -->") for name, text in fragments.items()}  # noqa: S704


def run_line(run_id: str) -> str:
    """The line of a model card that names its run."""
    return f"Run `{run_id}`.\n"


def replace_run(folder: Path, former: str, run_id: str, provenance: Mapping[str, Any]) -> None:
    """Replace the fragments on run ``former`` in the report in ``folder`` by those on another run."""
    page = folder / "index.html"
    text = page.read_text(encoding="utf-8")
    for name, fragment in run_fragments(run_id, provenance).items():
        before, start, rest = text.partition(f"<!-- run {name} -->")
        assert start, f"the page has no {name} of its run"
        text = f"{before}{fragment}{rest.partition('<!-- end -->')[2]}"
    page.write_text(text, encoding="utf-8")
    for card in folder.glob("model-card-*.md"):
        text = card.read_text(encoding="utf-8")
        assert text.endswith(run_line(former)), f"{card.name} does not name its run"
        card.write_text(text.removesuffix(run_line(former)) + run_line(run_id), encoding="utf-8")
