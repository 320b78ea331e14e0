"""``hep2flow recipe``: the recipes there are."""

from __future__ import annotations

from typing import Annotated

import typer

from hep2flow.cli.common import read_recipe
from hep2flow.cli.options import ProfileName, ProfileOption, RecipeArgument, SetOption

app = typer.Typer(no_args_is_help=True, help="The recipes there are.")


@app.command("list")
def list_all(
    profile: Annotated[
        ProfileName | None, typer.Option("--profile", help="Only this profile's; both when not given.")
    ] = None,
) -> None:
    """The shipped recipes: profile, name, network and image size."""
    from hep2flow.recipe import load_recipe, shipped_names

    for one in [profile] if profile else ProfileName:
        for name in shipped_names(one.value):
            model = load_recipe(name, one.value).model
            print(f"{one.value:<7} {name:<11} {model.network} @ {model.image_size} px")


@app.command()
def show(recipe: RecipeArgument, profile: ProfileOption = ProfileName.paper, set: SetOption = None) -> None:
    """One recipe, complete, as YAML that --recipe takes."""
    print(read_recipe(recipe, profile, set).to_yaml(), end="")


@app.command()
def table() -> None:
    """The paper's words beside what its two recipes make of them, in Markdown."""
    from hep2flow.reporting.recipe_table import render

    print(render(), end="")
