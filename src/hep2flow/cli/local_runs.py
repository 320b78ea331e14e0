"""``hep2flow run``, ``sweep`` and ``ablate``: complete pipelines on this machine."""

import json
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from hep2flow.cli import options
from hep2flow.cli.common import choose_run_id, connect_to_store, container_images, print_report, read_recipes
from hep2flow.errors import UserError
from hep2flow.store.layout import new_run_id, valid_run_id

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


def ablate(
    change: Annotated[
        str, Argument(metavar="KEY=VALUE,VALUE…", help="As data.mask=none,apply; the first is the reference.")
    ],
    source: options.SourceOption,
    recipe: options.RecipeOption,
    format: options.FormatOption = "auto",
    profile: options.ProfileOption = "paper",
    set: options.SetOption = None,
    seeds: options.SeedsOption = 1,
    address: options.AddressOption = None,
    run_id: Annotated[
        str, Option("--run-id", help="Name of the runs, RUN_ID-1, RUN_ID-2…; made from the time when not given.")
    ] = "",
    out: Annotated[Path | None, Option("--out", help="Folder of the results; out/RUN_ID when not given.")] = None,
) -> None:
    """Train a recipe under each value of one key, on the same cells, and print the differences with their intervals."""
    from hep2flow.execution.local.run import run_locally
    from hep2flow.execution.run_request import RunRequest
    from hep2flow.recipe import changed_values
    from hep2flow.reporting.comparison import compare_values, render_ablation
    from hep2flow.stages.artifacts import read_family

    key, values = changed_values(change)
    recipes = {value: read_recipes([recipe], profile, [*(set or []), f"{key}={value}"]) for value in values}
    name = run_id or new_run_id()
    run_ids = {value: valid_run_id(f"{name}-{number}") for number, value in enumerate(values, start=1)}
    folder, store = out or Path("out") / name, connect_to_store()
    for value in values:
        request = RunRequest(source, recipes[value], format, profile, seeds)
        run_locally(store, run_ids[value], request, folder / run_ids[value])
    found = compare_values(key, {value: read_family(store, run_ids[value]) for value in values})
    (folder / "ablation.json").write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    text = render_ablation(found)
    (folder / "ablation.md").write_text(text, encoding="utf-8")
    print(text)
