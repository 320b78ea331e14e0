"""``hep2flow sweep``: tune recipes, judge what was chosen, and train it, on this machine."""

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
    SetOption,
    StepImageOption,
)
from hep2flow.errors import UserError

app = typer.Typer()


@app.command()
def sweep(
    recipe: Annotated[
        list[str] | None, typer.Option("--recipe", help="Shipped name or .yaml file; several are swept one by one.")
    ] = None,
    source: Annotated[
        str, typer.Option("--source", help="Folder, .zip, .tar(.gz), or s3:// prefix of cell images.")
    ] = "",
    dataset: Annotated[str, typer.Option("--dataset", help="URI of a data set that is in the store already.")] = "",
    trials: Annotated[int, typer.Option("--trials", min=1, help="Trials of each recipe, in all.")] = 32,
    hours: Annotated[float, typer.Option("--hours", min=0, help="End each sweep after so long; 0: no limit.")] = 0,
    concurrency: Annotated[
        int, typer.Option("--concurrency", min=0, help="Trials at once; 0: as many as there is room for.")
    ] = 0,
    earlier: Annotated[
        str, typer.Option("--from", metavar="RUN", help="Run whose sweeps of the same space to learn from.")
    ] = "",
    judge: Annotated[
        int,
        typer.Option("--judge", min=0, help="Trainings of the winner, and of the recipe as it is, that judge it."),
    ] = 5,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Full trainings of each winner in the end.")] = 1,
    format: FormatOption = Format.auto,
    profile: ProfileOption = ProfileName.paper,
    set: SetOption = None,
    address: AddressOption = None,
    runner: RunnerOption = Runner.subprocess,
    step_image: StepImageOption = None,
    ray_image: RayImageOption = None,
    run_id: Annotated[
        str, typer.Option("--run-id", help="Name of the run; made from date and time when not given.")
    ] = "",
    resume: Annotated[
        str, typer.Option("--resume", metavar="ID", help="Go on with this run; all else is known from its record.")
    ] = "",
    out: Annotated[
        Path | None, typer.Option("--out", help="Where the results are left; out/RUN_ID when not given.")
    ] = None,
) -> None:
    """Sweep the search space of recipes through Ray Tune, judge what was chosen, train and evaluate it, report."""
    from hep2flow.execution.local.run import launch
    from hep2flow.execution.run_request import Request, Sweep, request_of
    from hep2flow.store.layout import new_run_id, valid_run_id

    if not resume and bool(source) == bool(dataset):
        raise UserError("give one of --source (cell images), --dataset (URI of one in the store) and --resume (a run)")
    images = images_of(runner, step_image, ray_image)
    store = connect()
    if resume:
        name, request = resume, request_of(store, resume)
    else:
        name = valid_run_id(run_id) if run_id else new_run_id()
        request = Request(
            source or dataset,
            [read_recipe(each, profile, set) for each in recipe or ["convnext-b", "coat-mini"]],
            format.value,
            profile.value,
            sweep=Sweep(trials, hours, concurrency, earlier, judge, seeds),
        )
    folder = out or Path("out") / name
    launch(store, name, request, folder, images)
    print((folder / "report" / "summary.md").read_text(encoding="utf-8"))
    for best in sorted(folder.glob("sweeps/*/best.yaml")):
        print(f"best recipe: {best}")
    print(f"report: {folder / 'report' / 'index.html'}")
