"""The stages, one by one."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from typer import Option

from hep2flow.cli import options
from hep2flow.cli.common import connect_to_store, print_result, progress_counter, read_recipe, validate_section
from hep2flow.errors import UserError
from hep2flow.store.outage import log_to_stderr


def ingest(
    source: options.SourceOption,
    format: options.FormatOption = "auto",
    name: Annotated[str | None, Option(help="Name of the data set in the store.")] = None,
    as_json: options.JsonOption = False,
) -> None:
    """Check every cell and publish the data set in the store."""
    from hep2flow.stages.ingest import ingest as stage

    print_result(stage(connect_to_store(), source, format, name, progress_counter("ingest")), as_json)


def mask(
    dataset: options.DatasetOption,
    mode: Annotated[str, Option(help="apply | crop | none")] = "apply",
    mask_source: Annotated[str, Option(help="auto | given")] = "auto",
    as_json: options.JsonOption = False,
) -> None:
    """Black out, or cut off, what lies outside each cell."""
    from hep2flow.stages.mask import mask as stage

    choice = validate_section("Data", {"mask": mode, "mask_source": mask_source})
    print_result(stage(connect_to_store(), dataset, choice.mask, choice.mask_source, progress_counter("mask")), as_json)


def split(
    dataset: options.DatasetOption,
    protocol: Annotated[str, Option(help="auto | given | stratified | specimen | id-block | whole-train")] = "auto",
    train_fraction: Annotated[float, Option()] = 0.5,
    seed: Annotated[int, Option()] = 0,
    given_split: Annotated[str, Option(help="URI of the source's own split, from ingest.")] = "",
    as_json: options.JsonOption = False,
) -> None:
    """Divide a data set into train, validation and test."""
    from hep2flow.stages.split import split as stage

    choice = validate_section("Split", {"protocol": protocol, "train_fraction": train_fraction, "seed": seed})
    print_result(stage(connect_to_store(), dataset, choice, given_split), as_json)


def train(
    recipe: options.RecipeOption = "",
    dataset: options.DatasetOption = "",
    split: options.SplitOption = "",
    profile: options.ProfileOption = "paper",
    set: options.SetOption = None,
    spec: options.SpecOption = None,
    address: options.AddressOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Train one recipe through Ray Train, or resume a training that was interrupted."""
    if _ran_spec("train", spec, {"--recipe": recipe, "--dataset": dataset, "--split": split}, set, as_json):
        return
    from hep2flow.execution.watch_run import show_stage_progress
    from hep2flow.stages.train import train as stage

    parsed, store = read_recipe(recipe, profile, set), connect_to_store()
    with show_stage_progress(store, "train", parsed.name) as (announce, log):
        result = stage(store, parsed, dataset, split, announce, log)
    print_result(result, as_json)


def tune(
    recipe: options.RecipeOption = "",
    dataset: options.DatasetOption = "",
    split: options.SplitOption = "",
    trials: Annotated[
        int | None, Option(min=1, help="Total number of trials; an existing smaller sweep is extended.")
    ] = None,
    concurrency: Annotated[
        int | None, Option(min=1, help="Concurrent trials; as many as there is capacity for if not given.")
    ] = None,
    hours: Annotated[float | None, Option(help="Time limit, after which the finished trials decide.")] = None,
    earlier: Annotated[str, Option("--from", help="URI of an earlier sweep of the same space to learn from.")] = "",
    judge: options.JudgeOption = 5,
    profile: options.ProfileOption = "paper",
    set: options.SetOption = None,
    spec: options.SpecOption = None,
    address: options.AddressOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Sweep a recipe's search space through Ray Tune, or resume a sweep that was interrupted."""
    required = {"--recipe": recipe, "--dataset": dataset, "--split": split, "--trials": trials}
    if _ran_spec("tune", spec, required, set, as_json):
        return
    from hep2flow.execution.watch_run import show_stage_progress
    from hep2flow.search.settings import parse_sweep_settings
    from hep2flow.stages.judge import judge_sweep
    from hep2flow.stages.tune import tune as stage

    given = {"trials": trials, "hours": hours or 0, "concurrency": concurrency or 0, "earlier": earlier}
    settings = parse_sweep_settings(given, "--")
    parsed, store = read_recipe(recipe, profile, set), connect_to_store()
    with show_stage_progress(store, "tune", parsed.name) as (announce, log):
        result = stage(store, parsed, dataset, split, settings, announce=announce, log=log)
        if judge:
            judged = judge_sweep(store, result.uri, judge, announce, log)
            result.summary["judgement"] = judged.summary
    print_result(result, as_json)


def evaluate(
    dataset: options.DatasetOption = "",
    recipe: Annotated[str | None, Option(help="A shipped recipe's name, or a .yaml file.")] = None,
    training: Annotated[str | None, Option(help="URI of a training.")] = None,
    split: Annotated[str | None, Option(help="URI of a split.")] = None,
    profile: Annotated[options.Profile | None, Option(help="Of the recipe; paper if not given.")] = None,
    set: options.SetOption = None,
    run: Annotated[str | None, Option(help="A finished run, for cells of another data set.")] = None,
    model: options.ModelOption = None,
    map: Annotated[
        list[str] | None,
        Option(metavar="OTHER=OURS", help="What the other data set calls OTHER; OTHER= leaves it out."),
    ] = None,
    spec: options.SpecOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Evaluate a training on its test cells, or a run's frozen network on every cell of another data set.

    The first needs --recipe, --training, --split; where there are no test cells it takes the validation cells, and says
    so. The second needs --run, with --model and --map.
    """
    internal = {"--recipe": recipe, "--training": training, "--split": split, "--profile": profile, "--set": set}
    external = {"--run": run, "--model": model, "--map": map}
    if spec is not None:
        _ran_spec("evaluate", spec, {"--dataset": dataset, **internal, **external}, None, as_json)
        return
    if not dataset:
        raise UserError("evaluate: --dataset missing; see --help")
    mixed = [[name for name, value in form.items() if value is not None] for form in (internal, external)]
    if all(mixed):
        raise UserError(
            f"evaluate: {', '.join(mixed[0])} and {', '.join(mixed[1])} do not go together; give --recipe, --training, "
            "--dataset and --split, or --run and --dataset"
        )
    progress = progress_counter("evaluate")
    if run is not None:
        from hep2flow.stages.evaluate_external import evaluate_external

        result = evaluate_external(connect_to_store(), run, model, dataset, map or [], log_to_stderr, progress)
    else:
        if recipe is None or training is None or split is None:
            missing = ", ".join(name for name in ("--recipe", "--training", "--split") if internal[name] is None)
            raise UserError(f"evaluate: {missing} missing; or, for another data set, give --run and --dataset")
        from hep2flow.stages.evaluate import evaluate as stage

        parsed = read_recipe(recipe, profile or "paper", set)
        result = stage(connect_to_store(), parsed, training, dataset, split, progress)
    print_result(result, as_json)


def report(
    run_id: Annotated[str, Option("--run", help="Run to write the report of.")],
    out: Annotated[Path | None, Option(help="Also copy the report here.")] = None,
    as_json: options.JsonOption = False,
) -> None:
    """Write a run's report again, from its evaluations."""
    from hep2flow.stages.artifacts import finished_evaluations, finished_sweeps
    from hep2flow.stages.report import report as stage
    from hep2flow.store.pull import pull as pull_run

    store = connect_to_store()
    result = stage(store, run_id, finished_evaluations(store, run_id), finished_sweeps(store, run_id))
    if out is not None:
        pull_run(store, run_id, out, "report")
    print_result(result, as_json)


def _ran_spec(
    stage: str, spec: str | None, required: Mapping[str, object], set: list[str] | None, as_json: bool
) -> bool:
    """Run the job that ``--spec`` names; False without one, where the required options have to be given instead."""
    given = [name for name, value in {**required, "--set": set}.items() if value]
    if spec is None:
        if missing := [name for name in required if name not in given]:
            raise UserError(f"{stage}: {', '.join(missing)} missing; see --help")
        return False
    if given:
        raise UserError(f"{stage}: --spec says everything; leave out {', '.join(given)}")
    from hep2flow.execution.kubernetes.job_entrypoint import run_job
    from hep2flow.store.open_store import open_store

    # Not checked: where network policies are enforced, a pod's first connections are refused for up to a minute.
    if (result := run_job(open_store(on_outage=log_to_stderr), spec)) is not None:
        print_result(result, as_json)
    return True
