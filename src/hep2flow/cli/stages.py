"""The stages, one by one."""

from __future__ import annotations

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
    ProfileName,
    ProfileOption,
    RecipeOption,
    SetOption,
    SourceOption,
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
    recipe: RecipeOption,
    dataset: DatasetOption,
    split: SplitOption,
    profile: ProfileOption = ProfileName.paper,
    set: SetOption = None,
    address: AddressOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train one recipe through Ray Train, or go on with a training that was interrupted."""
    from hep2flow.cluster.follow import followed_training
    from hep2flow.stages.train import train as stage

    read, store = read_recipe(recipe, profile, set), connect()
    with followed_training(store, read.name) as following:
        result = stage(store, read, dataset, split, following.announce, following.tell)
    show_result(result, as_json)


@app.command()
def tune(
    recipe: RecipeOption,
    dataset: DatasetOption,
    split: SplitOption,
    trials: Annotated[int, typer.Option("--trials", min=1, help="Trials in all; a sweep of fewer is gone on with.")],
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
    profile: ProfileOption = ProfileName.paper,
    set: SetOption = None,
    address: AddressOption = None,
    as_json: JsonOption = False,
) -> None:
    """Sweep a recipe's search space through Ray Tune, or go on with a sweep that was interrupted."""
    from hep2flow.stages.tune import tune as stage

    read, store = read_recipe(recipe, profile, set), connect()
    result = stage(store, read, dataset, split, trials, concurrency=concurrency, hours=hours, earlier=earlier)
    show_result(result, as_json)


@app.command()
def evaluate(
    recipe: RecipeOption,
    training: Annotated[str, typer.Option("--training", help="URI of a training.")],
    dataset: DatasetOption,
    split: SplitOption,
    profile: ProfileOption = ProfileName.paper,
    set: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Evaluate a training on the test cells (on the validation cells where there are none, and says so)."""
    from hep2flow.stages.evaluate import evaluate as stage

    show_result(
        stage(connect(), read_recipe(recipe, profile, set), training, dataset, split, counter("evaluate")), as_json
    )


@app.command()
def report(
    run_id: Annotated[str, typer.Option("--run", help="Run to write the report of.")],
    out: Annotated[Path | None, typer.Option("--out", help="Also copy the report here.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Write a run's report again, from its evaluations."""
    from hep2flow.stages.report import report as stage
    from hep2flow.store.pull import pull as pull_run
    from hep2flow.store.runs import show_run

    store = connect()
    evaluations = [
        record.result["uri"]
        for record in show_run(store, run_id).stages
        if record.stage == "evaluate" and record.status == "succeeded"
    ]
    if not evaluations:
        raise UserError(f"run {run_id}: has no finished evaluation yet; `hep2flow runs show {run_id}`")
    result = stage(store, run_id, evaluations)
    if out is not None:
        pull_run(store, run_id, out, "report")
    show_result(result, as_json)
