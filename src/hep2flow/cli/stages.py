"""The stages, one by one."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from hep2flow.cli.common import connect, counter, read_recipe, section, show_result
from hep2flow.cli.options import (
    AddressOption,
    DatasetOption,
    Format,
    FormatOption,
    JsonOption,
    ModelOption,
    ProfileName,
    ProfileOption,
    RecipeOption,
    SetOption,
    SourceOption,
    SpecOption,
    SplitOption,
)
from hep2flow.errors import UserError

app = typer.Typer()


@app.command()
def ingest(
    source: SourceOption,
    format: FormatOption = Format.auto,
    name: Annotated[str | None, typer.Option("--name", help="Name of the data set in the store.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Check every cell and publish the data set in the store."""
    from hep2flow.stages.ingest import ingest as stage

    show_result(stage(connect(), source, format.value, name, counter("ingest")), as_json)


@app.command()
def mask(
    dataset: DatasetOption,
    mode: Annotated[str, typer.Option("--mode", help="apply | crop | none")] = "apply",
    mask_source: Annotated[str, typer.Option("--mask-source", help="auto | given")] = "auto",
    as_json: JsonOption = False,
) -> None:
    """Black out, or cut off, what lies outside each cell."""
    from hep2flow.stages.mask import mask as stage

    choice = section("Data", {"mask": mode, "mask_source": mask_source})
    show_result(stage(connect(), dataset, choice.mask, choice.mask_source, counter("mask")), as_json)


@app.command()
def split(
    dataset: DatasetOption,
    protocol: Annotated[
        str, typer.Option("--protocol", help="auto | given | stratified | specimen | id-block | whole-train")
    ] = "auto",
    train_fraction: Annotated[float, typer.Option("--train-fraction")] = 0.5,
    seed: Annotated[int, typer.Option("--seed")] = 0,
    given_split: Annotated[str, typer.Option("--given-split", help="URI of the source's own split, from ingest.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Divide a data set into train, validation and test."""
    from hep2flow.stages.split import split as stage

    choice = section("Split", {"protocol": protocol, "train_fraction": train_fraction, "seed": seed})
    show_result(stage(connect(), dataset, choice, given_split), as_json)


@app.command()
def train(
    recipe: RecipeOption = "",
    dataset: DatasetOption = "",
    split: SplitOption = "",
    profile: ProfileOption = ProfileName.paper,
    set: SetOption = None,
    spec: SpecOption = None,
    address: AddressOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train one recipe through Ray Train, or go on with a training that was interrupted."""
    if _as_specified("train", spec, {"--recipe": recipe, "--dataset": dataset, "--split": split}, set, as_json):
        return
    from hep2flow.execution.progress_display import followed_training
    from hep2flow.stages.train import train as stage

    read, store = read_recipe(recipe, profile, set), connect()
    with followed_training(store, read.name) as following:
        result = stage(store, read, dataset, split, following.announce, following.tell)
    show_result(result, as_json)


@app.command()
def tune(
    recipe: RecipeOption = "",
    dataset: DatasetOption = "",
    split: SplitOption = "",
    trials: Annotated[
        int | None, typer.Option("--trials", min=1, help="Trials in all; a sweep of fewer is gone on with.")
    ] = None,
    concurrency: Annotated[
        int | None,
        typer.Option("--concurrency", min=1, help="Trials at once; as many as there is room for if not given."),
    ] = None,
    hours: Annotated[
        float | None, typer.Option("--hours", help="End after so long with the trials that are there.")
    ] = None,
    earlier: Annotated[
        str, typer.Option("--from", help="URI of an earlier sweep of the same space to learn from.")
    ] = "",
    judge: Annotated[
        int,
        typer.Option(
            "--judge", min=0, help="Trainings of the winner, and of the recipe as it is, that judge it; 0: none."
        ),
    ] = 5,
    profile: ProfileOption = ProfileName.paper,
    set: SetOption = None,
    spec: SpecOption = None,
    address: AddressOption = None,
    as_json: JsonOption = False,
) -> None:
    """Sweep a recipe's search space through Ray Tune, or go on with a sweep that was interrupted."""
    needed = {"--recipe": recipe, "--dataset": dataset, "--split": split, "--trials": trials}
    if _as_specified("tune", spec, needed, set, as_json):
        return
    assert trials is not None, "what is needed was given"
    from hep2flow.execution.progress_display import followed_sweep
    from hep2flow.stages.judge import judge as judge_stage
    from hep2flow.stages.tune import tune as stage

    read, store = read_recipe(recipe, profile, set), connect()
    with followed_sweep(store, read.name) as following:
        result = stage(
            store,
            read,
            dataset,
            split,
            trials,
            concurrency=concurrency,
            hours=hours,
            earlier=earlier,
            announce=following.announce,
            tell=following.tell,
        )
        if judge:
            judged = judge_stage(store, result.uri, judge, following.announce, following.tell)
            result.summary["judgement"] = judged.summary
    show_result(result, as_json)


def _as_specified(
    stage: str, spec: str | None, needed: Mapping[str, object], set: list[str] | None, as_json: bool
) -> bool:
    """Do what ``--spec`` names, where it is given; the other options are refused beside it and needed without it."""
    if spec is None:
        missing = [name for name, value in needed.items() if not value]
        if missing:
            raise UserError(f"{stage}: {', '.join(missing)} missing; see --help")
        return False
    beside = [name for name, value in {**needed, "--set": set}.items() if value]
    if beside:
        raise UserError(f"{stage}: --spec says everything; leave out {', '.join(beside)}")
    from hep2flow.execution.kubernetes.job_entrypoint import do
    from hep2flow.store.outage import to_standard_error
    from hep2flow.store.s3 import open_store

    # Not checked: where network policies are enforced, a pod's first connections are refused for up to a minute.
    if (result := do(open_store(patient=to_standard_error), spec)) is not None:
        show_result(result, as_json)
    return True


@app.command()
def evaluate(
    dataset: DatasetOption = "",
    recipe: Annotated[str | None, typer.Option("--recipe", help="A shipped recipe's name, or a .yaml file.")] = None,
    training: Annotated[str | None, typer.Option("--training", help="URI of a training.")] = None,
    split: Annotated[str | None, typer.Option("--split", help="URI of a split.")] = None,
    profile: Annotated[ProfileName | None, typer.Option("--profile", help="Of the recipe; paper if not given.")] = None,
    set: SetOption = None,
    run: Annotated[str | None, typer.Option("--run", help="A finished run, for cells of another data set.")] = None,
    model: ModelOption = None,
    map: Annotated[
        list[str] | None,
        typer.Option("--map", metavar="OTHER=OURS", help="What the other data set calls OTHER; OTHER= leaves it out."),
    ] = None,
    spec: SpecOption = None,
    as_json: JsonOption = False,
) -> None:
    """Evaluate a training on its test cells (--recipe, --training, --split; on the validation cells where there are none,
    and says so), or a run's frozen network on every cell of another data set (--run, --model, --map).
    """
    ours = {"--recipe": recipe, "--training": training, "--split": split, "--profile": profile, "--set": set}
    theirs = {"--run": run, "--model": model, "--map": map}
    if spec is not None and _as_specified("evaluate", spec, {"--dataset": dataset, **ours, **theirs}, None, as_json):
        return
    if not dataset:
        raise UserError("evaluate: --dataset missing; see --help")
    mixed = [[name for name, value in form.items() if value is not None] for form in (ours, theirs)]
    if all(mixed):
        raise UserError(
            f"evaluate: {', '.join(mixed[0])} and {', '.join(mixed[1])} do not go together; give --recipe, --training, "
            "--dataset and --split, or --run and --dataset"
        )
    if run is not None:
        from hep2flow.stages.evaluate_external import evaluate_external

        def tell(text: str) -> None:
            print(text, file=sys.stderr)

        result = evaluate_external(connect(), run, model, dataset, map or [], tell, counter("evaluate"))
        show_result(result, as_json)
        return
    if recipe is None or training is None or split is None:
        missing = [name for name in ("--recipe", "--training", "--split") if ours[name] is None]
        raise UserError(f"evaluate: {', '.join(missing)} missing; or, for another data set, give --run and --dataset")
    from hep2flow.stages.evaluate import evaluate as stage

    read = read_recipe(recipe, profile or ProfileName.paper, set)
    show_result(stage(connect(), read, training, dataset, split, counter("evaluate")), as_json)


@app.command()
def report(
    run_id: Annotated[str, typer.Option("--run", help="Run to write the report of.")],
    out: Annotated[Path | None, typer.Option("--out", help="Also copy the report here.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Write a run's report again, from its evaluations."""
    from hep2flow.stages.artifacts import finished_evaluations, finished_sweeps
    from hep2flow.stages.report import report as stage
    from hep2flow.store.pull import pull as pull_run

    store = connect()
    result = stage(store, run_id, finished_evaluations(store, run_id), finished_sweeps(store, run_id))
    if out is not None:
        pull_run(store, run_id, out, "report")
    show_result(result, as_json)
