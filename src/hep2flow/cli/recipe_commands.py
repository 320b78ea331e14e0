"""``hep2flow recipe``: the shipped recipes."""

from typing import Annotated, get_args

from typer import Option, Typer

from hep2flow.cli.common import read_recipe
from hep2flow.cli.options import Profile, ProfileOption, RecipeArgument, SetOption

app = Typer(name="recipe", no_args_is_help=True, help="Shipped recipes.")


@app.command("list")
def list_all(
    profile: Annotated[Profile | None, Option(help="Only this profile's; both when not given.")] = None,
) -> None:
    """The shipped recipes: profile, name, network and image size."""
    from hep2flow.recipe import load_recipe, shipped_names

    for chosen in [profile] if profile else get_args(Profile):
        for name in shipped_names(chosen):
            model = load_recipe(name, chosen).model
            print(f"{chosen:<7} {name:<11} {model.network} @ {model.image_size} px")


@app.command()
def show(recipe: RecipeArgument, profile: ProfileOption = "paper", set: SetOption = None) -> None:
    """One recipe, complete, as YAML that --recipe takes."""
    print(read_recipe(recipe, profile, set).to_yaml(), end="")


@app.command()
def table() -> None:
    """The paper's words beside what its two recipes make of them, in Markdown."""
    from hep2flow.reporting.recipe_table import render

    print(render(), end="")
