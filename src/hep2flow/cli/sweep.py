"""``hep2flow sweep``: tune recipes, judge what was chosen, and train it, on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Option

from hep2flow.cli import options
from hep2flow.cli.common import choose_run_id, connect_to_store, container_images, print_report, read_recipes
from hep2flow.errors import UserError


def sweep(
    recipe: Annotated[
        list[str] | None, Option(help="Shipped name or .yaml file; several are swept one by one.")
    ] = None,
    source: options.SourceOption = "",
    dataset: Annotated[str, Option(help="URI of a data set in the store, in place of a source.")] = "",
    trials: Annotated[int, Option(min=1, help="Total number of trials of each recipe.")] = 32,
    hours: Annotated[float, Option(min=0, help="Time limit of each sweep; 0: none.")] = 0,
    concurrency: Annotated[int, Option(min=0, help="Concurrent trials; 0: as many as there is capacity for.")] = 0,
    earlier: Annotated[
        str, Option("--from", metavar="RUN", help="Earlier run whose sweeps of the same space to learn from.")
    ] = "",
    judge: options.JudgeOption = 5,
    seeds: Annotated[int, Option(min=1, help="Full trainings of each winner at the end.")] = 1,
    format: options.FormatOption = "auto",
    profile: options.ProfileOption = "paper",
    set: options.SetOption = None,
    address: options.AddressOption = None,
    runner: options.RunnerOption = "subprocess",
    step_image: options.StepImageOption = None,
    ray_image: options.RayImageOption = None,
    run_id: options.RunIdOption = "",
    resume: Annotated[str, Option(metavar="ID", help="Resume this run; all other settings come from its record.")] = "",
    out: options.OutOption = None,
) -> None:
    """Sweep the search space of recipes through Ray Tune, judge what was chosen, train and evaluate it, report."""
    from hep2flow.execution.local.run import run_locally
    from hep2flow.execution.run_request import RunRequest, read_request
    from hep2flow.search.settings import SweepSettings

    if not resume and bool(source) == bool(dataset):
        raise UserError("give one of --source (cell images), --dataset (URI of one in the store) and --resume (a run)")
    images = container_images(runner, step_image, ray_image)
    store = connect_to_store()
    if resume:
        name, request = resume, read_request(store, resume)
    else:
        name = choose_run_id(run_id)
        recipes = read_recipes(recipe, profile, set)
        settings = SweepSettings(
            trials=trials, hours=hours, concurrency=concurrency, earlier=earlier, judge=judge, finals=seeds
        )
        request = RunRequest(source or dataset, recipes, format, profile, sweep=settings)
    folder = out or Path("out") / name
    run_locally(store, name, request, folder, images)
    print_report(folder, *(f"best recipe: {best}" for best in sorted(folder.glob("sweeps/*/best.yaml"))))
