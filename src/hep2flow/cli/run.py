"""``hep2flow run``: the whole pipeline on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hep2flow.cli.common import connect, images_of, read_recipe
from hep2flow.cli.options import (
    AddressOption,
    Format,
    FormatOption,
    ProfileName,
    ProfileOption,
    RayImageOption,
    Runner,
    RunnerOption,
    SeedsOption,
    SetOption,
    SourceOption,
    StepImageOption,
)

app = typer.Typer()

WHOLE_TRAIN = "data.split.protocol=whole-train"
PRETRAINED = "model.weights=pretrained"


@app.command()
def run(
    source: SourceOption,
    format: FormatOption = Format.auto,
    recipe: Annotated[
        list[str] | None, typer.Option("--recipe", help="Shipped name or .yaml file; several are compared.")
    ] = None,
    profile: ProfileOption = ProfileName.paper,
    set: SetOption = None,
    seeds: SeedsOption = 1,
    address: AddressOption = None,
    runner: RunnerOption = Runner.subprocess,
    step_image: StepImageOption = None,
    ray_image: RayImageOption = None,
    init_from: Annotated[
        str, typer.Option("--init-from", metavar="RUN", help="Start from the networks that another run has trained.")
    ] = "",
    whole_train: Annotated[
        bool,
        typer.Option(
            "--whole-train",
            help="The paper's Appendix A: train on all training cells, choose the epoch on the test set. Optimistic.",
        ),
    ] = False,
    run_id: Annotated[
        str, typer.Option("--run-id", help="Name of the run; made from date and time when not given.")
    ] = "",
    out: Annotated[
        Path | None, typer.Option("--out", help="Where the report is left; out/RUN_ID when not given.")
    ] = None,
) -> None:
    """Run the whole pipeline here: ingest, mask, split, train and evaluate each recipe, report."""
    from hep2flow.execution.local.run import launch
    from hep2flow.execution.run_request import Request
    from hep2flow.stages.initial_weights import init_from as transfer
    from hep2flow.store.layout import new_run_id, valid_run_id

    # A recipe that freezes layers is refused without weights; which ones it starts from is known once it is read.
    overrides = [*(set or []), *([WHOLE_TRAIN] if whole_train else []), *([PRETRAINED] if init_from else [])]
    recipes = [read_recipe(name, profile, overrides) for name in recipe or ["convnext-b", "coat-mini"]]
    name = valid_run_id(run_id) if run_id else new_run_id()
    images = images_of(runner, step_image, ray_image)
    folder = out or Path("out") / name
    store = connect()
    if init_from:
        recipes = transfer(store, init_from, recipes)
    launch(store, name, Request(source, recipes, format.value, profile.value, seeds), folder, images)
    print((folder / "report" / "summary.md").read_text(encoding="utf-8"))
    print(f"report: {folder / 'report' / 'index.html'}")
