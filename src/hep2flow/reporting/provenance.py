"""What a report tells of its own run: all that reports of the same evaluations do not share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from hep2flow.reporting.table import facts


def templates() -> Environment:
    """The page's templates."""
    return Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def of_this_run(run_id: str, provenance: Mapping[str, Any]) -> dict[str, Markup]:
    """The pieces of the page that tell of its run, each between marks by which it is found again."""
    macros: Any = templates().get_template("table.html.j2").module
    pieces = {"name": escape(run_id), "facts": macros.table(facts("Where this came from", provenance))}
    return {name: Markup(f"<!-- run {name} -->{piece}<!-- end -->") for name, piece in pieces.items()}  # noqa: S704


def run_line(run_id: str) -> str:
    """The line of a model card that tells of its run."""
    return f"Run `{run_id}`.\n"


def readdress(folder: Path, former: str, run_id: str, provenance: Mapping[str, Any]) -> None:
    """Make the report of a former run, in ``folder``, that of another run of the same evaluations."""
    page = folder / "index.html"
    text = page.read_text(encoding="utf-8")
    for name, piece in of_this_run(run_id, provenance).items():
        before, mark, rest = text.partition(f"<!-- run {name} -->")
        assert mark, f"the page has no {name} of its run"
        text = f"{before}{piece}{rest.partition('<!-- end -->')[2]}"
    page.write_text(text, encoding="utf-8")
    for card in folder.glob("model-card-*.md"):
        text = card.read_text(encoding="utf-8")
        assert text.endswith(run_line(former)), f"{card.name} does not name its run"
        card.write_text(text.removesuffix(run_line(former)) + run_line(run_id), encoding="utf-8")
