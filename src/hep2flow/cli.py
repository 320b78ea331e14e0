"""The command line: each command a few lines that call a stage, the store or the pipeline.

Heavy packages are imported by the command that needs them, so that ``--help`` answers at once.
Exit codes: 0 done; 2 the user can mend it; 1 a defect of ours; 130 interrupted.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hep2flow import __version__
from hep2flow.errors import UserError

if TYPE_CHECKING:
    from hep2flow.recipe import Recipe
    from hep2flow.results import StageResult

INTERRUPTED = 130

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="HEp-2 cell classification as a workflow.",
)
data = typer.Typer(no_args_is_help=True, help="Make or check a data set.")
runs = typer.Typer(no_args_is_help=True, help="What ran.")
storage = typer.Typer(no_args_is_help=True, help="The embedded object store on this machine.")
app.add_typer(data, name="data")
app.add_typer(runs, name="runs")
app.add_typer(storage, name="storage")


class Format(str, Enum):
    """Data set forms."""

    auto = "auto"
    icpr2012 = "icpr2012"
    i3a = "i3a"
    folder = "folder"


class ProfileName(str, Enum):
    """Recipe profiles."""

    paper = "paper"
    laptop = "laptop"


class Only(str, Enum):
    """Parts of a run."""

    report = "report"
    metrics = "metrics"
    checkpoints = "checkpoints"


class Pipeline(str, Enum):
    """Pipelines."""

    reproduce = "reproduce"


SourceOption = Annotated[str, typer.Option("--source", help="Folder, .zip, .tar(.gz), or s3:// prefix of cell images.")]
FormatOption = Annotated[Format, typer.Option("--format", help="Form of the source; recognised when not given.")]
ProfileOption = Annotated[
    ProfileName, typer.Option("--profile", help="paper: the paper's values; laptop: small stand-ins.")
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="Override a recipe's leaf, for example optim.lr=2e-5.")
]
RecipeOption = Annotated[str, typer.Option("--recipe", help="A shipped recipe's name, or a .yaml file.")]
DatasetOption = Annotated[str, typer.Option("--dataset", help="URI of a data set.")]
SplitOption = Annotated[str, typer.Option("--split", help="URI of a split.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]


@app.callback(invoke_without_command=True)
def _main(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    if version:
        print(f"hep2flow {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())
        raise typer.Exit
    if debug:
        os.environ["HEP2FLOW_DEBUG"] = "1"


@app.command()
def run(
    source: SourceOption,
    format: FormatOption = Format.auto,
    recipe: Annotated[
        list[str] | None, typer.Option("--recipe", help="Shipped name or .yaml file; several are compared.")
    ] = None,
    profile: ProfileOption = ProfileName.paper,
    set: SetOption = None,
    run_id: Annotated[
        str, typer.Option("--run-id", help="Name of the run; made from date and time when not given.")
    ] = "",
    out: Annotated[
        Path | None, typer.Option("--out", help="Where the report is left; out/RUN_ID when not given.")
    ] = None,
) -> None:
    """Run the whole pipeline here: ingest, mask, split, train and evaluate each recipe, report."""
    from hep2flow.cluster.follow import followed
    from hep2flow.cluster.local import run_here
    from hep2flow.recipe import load_recipe
    from hep2flow.stages.begin import begin, shared_data
    from hep2flow.store.layout import new_run_id, valid_run_id
    from hep2flow.store.pull import pull
    from hep2flow.store.runs import interrupted
    from hep2flow.store.s3 import open_store

    names = recipe or ["convnext-b", "coat-mini"]
    recipes = [load_recipe(name, profile.value, set or []) for name in names]
    shared_data(recipes)
    if not source.startswith("s3://"):
        if not Path(source).exists():
            raise UserError(f"--source {source}: there is no such file or folder")
        source = str(Path(source).resolve())
    name = valid_run_id(run_id) if run_id else new_run_id()
    folder = out or Path("out") / name
    store = open_store()
    store.check()
    address = store.address
    texts = [one.to_yaml() for one in recipes]
    # The pipeline begins with this too; here it refuses a run id that is taken before Ray starts.
    begin(store, name, "", {"source": source, "format": format.value}, texts, profile.value)
    print(f"run {name}: {', '.join(one.title for one in recipes)}", file=sys.stderr)
    with interrupted(store, name), followed(store, name):
        view = run_here(
            store,
            {
                "source": source,
                "format": format.value,
                "recipes": texts,
                "profile": profile.value,
                "run_id": name,
                "store_endpoint": address.endpoint or "",
                "store_region": address.region,
                "store_bucket": address.bucket,
                "store_prefix": address.prefix,
            },
            folder / "log.txt",
        )
    if view.status != "succeeded":
        _tell_failure(view, folder / "log.txt")
    pull(store, name, folder)
    print((folder / "report" / "summary.md").read_text(encoding="utf-8"))
    print(f"report: {folder / 'report' / 'index.html'}")


def _tell_failure(view: Any, log: Path) -> None:
    failed = [record for record in view.stages if record.status == "failed"]
    for record in failed:
        if record.mendable:
            raise UserError(record.error)
    what = f"{failed[0].stage}: {failed[0].error}" if failed else f"status {view.status}"
    print(f"hep2flow: run {view.run.run_id} failed, {what}; the whole story is in {log}", file=sys.stderr)
    raise typer.Exit(1)


@data.command()
def synth(
    folder: Annotated[Path, typer.Argument(help="Folder to make; must not exist, or be empty.")],
    seed: Annotated[int, typer.Option("--seed", min=0)] = 0,
    specimens: Annotated[int | None, typer.Option("--specimens", help="Keep this many of the 28.")] = None,
) -> None:
    """Generate a synthetic twin of ICPR 2012: same layout, same counts, drawn cells."""
    from hep2flow.sources.synthetic import write_twin

    write_twin(folder, seed, specimens)
    print(f"{folder}: synthetic cells in the ICPR 2012 layout (seed {seed}); they say nothing about real ones")


@data.command()
def check(
    path: Annotated[str, typer.Argument(help="Folder, archive or s3:// prefix.")],
    format: FormatOption = Format.auto,
    as_json: JsonOption = False,
) -> None:
    """Count cells, compare with published counts, and list every fault."""
    from hep2flow.sources import open_source
    from hep2flow.sources.check import check as check_source

    with open_source(path, format.value, _downloader(path)) as source:
        report = check_source(source)
    print(json.dumps(report.to_dict(), indent=2) if as_json else report.render())
    if report.faults:
        raise typer.Exit(2)


def _downloader(location: str) -> Any:
    if not location.startswith("s3://"):
        return None
    from hep2flow.store.s3 import open_store

    return open_store().download


@app.command()
def ingest(
    source: SourceOption,
    format: FormatOption = Format.auto,
    name: Annotated[str | None, typer.Option("--name", help="Name of the data set in the store.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Check every cell and publish the data set in the store."""
    from hep2flow.stages.ingest import ingest as stage

    _show(stage(_store(), source, format.value, name, _counter("ingest")), as_json)


@app.command()
def mask(
    dataset: DatasetOption,
    mode: Annotated[str, typer.Option("--mode", help="apply | crop | none")] = "apply",
    mask_source: Annotated[str, typer.Option("--mask-source", help="auto | given")] = "auto",
    as_json: JsonOption = False,
) -> None:
    """Black out, or cut off, what lies outside each cell."""
    from hep2flow.stages.mask import mask as stage

    choice = _section("Data", {"mask": mode, "mask_source": mask_source})
    _show(stage(_store(), dataset, choice.mask, choice.mask_source, _counter("mask")), as_json)


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

    choice = _section("Split", {"protocol": protocol, "train_fraction": train_fraction, "seed": seed})
    _show(stage(_store(), dataset, choice, given_split), as_json)


@app.command()
def train(
    recipe: RecipeOption,
    dataset: DatasetOption,
    split: SplitOption,
    profile: ProfileOption = ProfileName.paper,
    set: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train one recipe through Ray Train."""
    from hep2flow.cluster.follow import followed_training
    from hep2flow.stages.train import train as stage

    read, store = _recipe(recipe, profile, set), _store()
    with followed_training(store, read.name) as announce:
        result = stage(store, read, dataset, split, announce)
    _show(result, as_json)


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

    _show(stage(_store(), _recipe(recipe, profile, set), training, dataset, split, _counter("evaluate")), as_json)


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

    store = _store()
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
    _show(result, as_json)


@app.command("compile")
def compile_pipeline(
    pipeline: Annotated[Pipeline, typer.Argument()],
    output: Annotated[Path, typer.Option("-o", "--output", help="YAML file to write.")],
) -> None:
    """Write a pipeline's Kubeflow IR YAML."""
    from hep2flow.cluster.compiling import compile_to

    compile_to(pipeline.value, output)
    print(output)


@runs.command("list")
def list_all(as_json: JsonOption = False) -> None:
    """All runs, the latest first."""
    from hep2flow.store.runs import list_runs

    views = list_runs(_store())
    if as_json:
        print(json.dumps([view.model_dump(mode="json") for view in views], indent=2))
        return
    for view in views:
        models = ", ".join(view.run.recipes)
        print(f"{view.run.run_id:<40} {view.status:<12} {view.run.started:%Y-%m-%d %H:%M}  {models}")


@runs.command()
def show(run_id: str, as_json: JsonOption = False) -> None:
    """One run and its stages, told from their heartbeats."""
    from hep2flow.cluster.follow import describe
    from hep2flow.store.layout import stage_name
    from hep2flow.store.runs import show_run

    view = show_run(_store(), run_id)
    if as_json:
        print(view.model_dump_json(indent=2))
        return
    print(f"{run_id}: {view.status}, started {view.run.started:%Y-%m-%d %H:%M} UTC")
    for record in view.stages:
        name = stage_name(record.stage, record.model)
        lost = view.stage_status[name] == "lost"
        print(f"  {name:<24} {'lost: no sign of life' if lost else describe(record)}  {record.key or ''}")
        if record.error:
            print(f"    {record.error}")


@app.command()
def pull(
    run_id: str,
    to: Annotated[Path | None, typer.Option("--to", help="Folder; ./RUN_ID when not given.")] = None,
    only: Annotated[Only | None, typer.Option("--only")] = None,
) -> None:
    """Copy a run's report, metrics and checkpoints from the store."""
    from hep2flow.store.pull import pull as pull_run

    folder = to or Path(run_id)
    written = pull_run(_store(), run_id, folder, only.value if only else None)
    print(f"{len(written)} files in {folder}")


@storage.command()
def up() -> None:
    """Start the embedded store, or find it running."""
    from hep2flow.store import embedded

    embedded.ensure()
    _storage_status()


@storage.command()
def down() -> None:
    """Stop the embedded store; its data stays."""
    from hep2flow.store import embedded

    print("stopped" if embedded.down() else "was not running")


@storage.command()
def status(as_json: JsonOption = False) -> None:
    """Whether the embedded store runs, where, and how much it holds."""
    _storage_status(as_json)


@storage.command()
def path() -> None:
    """The folder the embedded store keeps its data in."""
    from hep2flow.store import embedded

    print(embedded.status()["data"])


def _storage_status(as_json: bool = False) -> None:
    from hep2flow.store import embedded

    facts = embedded.status()
    if as_json:
        print(json.dumps(facts, indent=2))
        return
    for name, value in facts.items():
        print(f"{name:<10} {value}")


def _store() -> Any:
    from hep2flow.store.s3 import open_store

    store = open_store()
    store.check()
    return store


def _recipe(name: str, profile: ProfileName, overrides: list[str] | None) -> Recipe:
    from hep2flow.recipe import load_recipe

    return load_recipe(name, profile.value, overrides or [])


def _section(kind: str, values: dict[str, Any]) -> Any:
    """Command-line values checked as the recipe's section would check them."""
    from pydantic import ValidationError

    from hep2flow import recipe

    try:
        return getattr(recipe, kind).model_validate(values)
    except ValidationError as error:
        faults = [(str(item["loc"][-1]), item["msg"], item["input"]) for item in error.errors()]
        options = {"mask": "mode", "mask_source": "mask-source", "train_fraction": "train-fraction"}
        raise UserError(
            "; ".join(f"--{options.get(key, key)}: {what}, not {given!r}" for key, what, given in faults)
        ) from error


def _counter(name: str) -> Any:
    """A progress line on a terminal, nothing elsewhere."""
    if not sys.stderr.isatty():
        return None

    def tell(done: int, total: int) -> None:
        if done == total or done % 50 == 0:
            print(f"\r{name} {done}/{total}", end="\n" if done == total else "", file=sys.stderr, flush=True)

    return tell


def _show(result: StageResult, as_json: bool) -> None:
    if as_json:
        print(result.model_dump_json(indent=2))
        return
    print(f"{result.stage}: {'there already' if result.cached else 'done'}  {result.uri}")
    for name, value in result.summary.items():
        if value not in (None, "", []):
            print(f"  {name}: {value}")


def main() -> None:
    """Entry point: errors a user can mend are one message and exit code 2, never a traceback."""
    try:
        code = app(standalone_mode=False)
    except UserError as error:
        if os.environ.get("HEP2FLOW_DEBUG"):
            traceback.print_exc()
        print(f"hep2flow: {error}", file=sys.stderr)
        sys.exit(2)
    except typer.TyperException as error:  # an option or argument that is missing or wrong
        if message := error.format_message():  # none where the help was shown instead
            print(f"hep2flow: {message.rstrip('.')}; see --help", file=sys.stderr)
        sys.exit(error.exit_code)
    if code == INTERRUPTED:
        print("hep2flow: interrupted", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
