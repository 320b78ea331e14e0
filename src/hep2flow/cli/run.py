"""``hep2flow run``: the complete pipeline on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Option

from hep2flow.cli import options
from hep2flow.cli.common import choose_run_id, connect_to_store, container_images, print_report, read_recipes

WHOLE_TRAIN = "data.split.protocol=whole-train"
PRETRAINED = "model.weights=pretrained"


def run(
    source: options.SourceOption,
    format: options.FormatOption = "auto",
    recipe: options.RecipesOption = None,
    profile: options.ProfileOption = "paper",
    set: options.SetOption = None,
    seeds: options.SeedsOption = 1,
    address: options.AddressOption = None,
    runner: options.RunnerOption = "subprocess",
    step_image: options.StepImageOption = None,
    ray_image: options.RayImageOption = None,
    init_from: Annotated[str, Option(metavar="RUN", help="Start from the networks that another run has trained.")] = "",
    whole_train: Annotated[
        bool,
        Option(
            "--whole-train",
            help="The paper's Appendix A: train on all training cells, choose the epoch on the test set. Optimistic.",
        ),
    ] = False,
    run_id: options.RunIdOption = "",
    out: options.OutOption = None,
) -> None:
    """Run the complete pipeline here: ingest, mask, split, train and evaluate each recipe, report."""
    from hep2flow.execution.local.run import run_locally
    from hep2flow.execution.run_request import RunRequest
    from hep2flow.stages.initial_weights import initialize_from_run

    # A recipe that freezes layers is refused without weights; which ones it starts from is known once it is read.
    overrides = [*(set or []), *([WHOLE_TRAIN] if whole_train else []), *([PRETRAINED] if init_from else [])]
    recipes = read_recipes(recipe, profile, overrides)
    name = choose_run_id(run_id)
    images = container_images(runner, step_image, ray_image)
    folder = out or Path("out") / name
    store = connect_to_store()
    if init_from:
        recipes = initialize_from_run(store, init_from, recipes)
    run_locally(store, name, RunRequest(source, recipes, format, profile, seeds), folder, images)
    print_report(folder)
