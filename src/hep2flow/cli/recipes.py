"""``hep2flow recipe``: the recipes there are."""

from __future__ import annotations

import typer

from hep2flow.cli.common import read_recipe
from hep2flow.cli.options import ProfileName, ProfileOption, RecipeArgument, SetOption

app = typer.Typer(no_args_is_help=True, help="The recipes there are.")


@app.command("list")
def list_all() -> None:
    """The shipped recipes of both profiles."""
    from hep2flow.recipe import load_recipe, shipped_names

    for profile in ("paper", "laptop"):
        for name in shipped_names(profile):
            print(f"{profile:<8} {load_recipe(name, profile).title}")


@app.command()
def show(recipe: RecipeArgument, profile: ProfileOption = ProfileName.paper, set: SetOption = None) -> None:
    """One recipe, complete, as YAML that --recipe takes."""
    print(read_recipe(recipe, profile, set).to_yaml(), end="")


@app.command()
def table() -> None:
    """The paper's words beside what its two recipes make of them, in Markdown."""
    from hep2flow.reporting.recipe_table import render

    print(render(), end="")
