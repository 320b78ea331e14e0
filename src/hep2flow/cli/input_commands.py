"""``hep2flow data``, ``recipe`` and ``weights``: what runs take in."""

import json
from pathlib import Path
from typing import Annotated, get_args

from typer import Argument, Exit, Option, Typer

from hep2flow.cli import options
from hep2flow.cli.common import connect_to_store, read_recipe

data = Typer(name="data", no_args_is_help=True, help="Make or check a data set.")
recipe = Typer(name="recipe", no_args_is_help=True, help="Shipped recipes.")
weights = Typer(name="weights", no_args_is_help=True, help="Pre-trained weights in the object store.")


@data.command()
def synth(
    folder: Annotated[Path, Argument(help="Folder to make; must not exist, or be empty.")],
    seed: Annotated[int, Option(min=0)] = 0,
    specimens: Annotated[int | None, Option(help="Keep this many of the 28.")] = None,
) -> None:
    """Generate a synthetic twin of ICPR 2012: same layout, same counts, drawn cells."""
    from hep2flow.sources.synthetic import write_twin

    write_twin(folder, seed, specimens)
    print(f"{folder}: synthetic cells in the ICPR 2012 layout (seed {seed}); they say nothing about real ones")


@data.command()
def check(
    path: Annotated[str, Argument(help="Folder, archive or s3:// prefix.")],
    format: options.FormatOption = "auto",
    as_json: options.JsonOption = False,
) -> None:
    """Count cells, compare with published counts, and list every fault."""
    from hep2flow.sources import open_source
    from hep2flow.sources.check import check as check_source
    from hep2flow.sources.check import render

    download = None
    if path.startswith("s3://"):
        from hep2flow.store.open_store import open_store

        download = open_store().download
    with open_source(path, format, download) as source:
        report = check_source(source)
    print(json.dumps(report, indent=2) if as_json else render(report))
    if report["faults"]:
        raise Exit(2)


@recipe.command("list")
def list_recipes(
    profile: Annotated[options.Profile | None, Option(help="Only this profile's; both when not given.")] = None,
) -> None:
    """The shipped recipes: profile, name, network and image size."""
    from hep2flow.recipe import load_recipe, shipped_names

    for chosen in [profile] if profile else get_args(options.Profile):
        for name in shipped_names(chosen):
            model = load_recipe(name, chosen).model
            print(f"{chosen:<7} {name:<11} {model.network} @ {model.image_size} px")


@recipe.command()
def show(
    recipe: Annotated[str, Argument(help="A shipped recipe's name, or a .yaml file.")],
    profile: options.ProfileOption = "paper",
    set: options.SetOption = None,
) -> None:
    """One recipe, complete, as YAML that --recipe takes."""
    print(read_recipe(recipe, profile, set).to_yaml(), end="")


@recipe.command()
def table() -> None:
    """The paper's words beside what its two recipes make of them, in Markdown."""
    from hep2flow.reporting.recipe_table import render

    print(render(), end="")


@weights.command()
def mirror(
    network: Annotated[str, Argument(help="timm's name, for example convnext_base.fb_in22k.")],
    file: Annotated[
        Path | None, Option(help="Its model.safetensors, fetched elsewhere; timm's hub when not given.")
    ] = None,
    as_json: options.JsonOption = False,
) -> None:
    """Copy a network's pre-trained weights into the object store, where every training finds them."""
    from hep2flow.stages.initial_weights import mirror_weights

    mirrored = mirror_weights(connect_to_store(), network, file)
    print(mirrored.model_dump_json(indent=2) if as_json else f"{mirrored.network}: {mirrored.key}  {mirrored.sha256}")


@weights.command("list")
def list_mirrored(as_json: options.JsonOption = False) -> None:
    """The mirrored weights."""
    from hep2flow.store import weights_mirror

    mirrored = weights_mirror.list_mirrored(connect_to_store())
    if as_json:
        print(json.dumps([one.model_dump(mode="json") for one in mirrored], indent=2))
        return
    for one in mirrored:
        print(f"{one.network:<40} {one.bytes / 2**20:8.1f} MiB  {one.sha256[:12]}  {one.origin}")
