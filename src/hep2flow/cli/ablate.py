"""``hep2flow ablate``: one key of a recipe, several values, the same cells."""

from __future__ import annotations

import typer

app = typer.Typer()
