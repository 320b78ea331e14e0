"""``hep2flow runs``, ``predict``, ``export`` and ``pull``: what is done with runs that exist."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from typer import Argument, Option, Typer

from hep2flow.cli import options
from hep2flow.cli.common import connect_to_store, progress_counter
from hep2flow.errors import UserError
from hep2flow.reporting.formatting import RESEARCH_ONLY
from hep2flow.store.outage import log_to_stderr

if TYPE_CHECKING:
    from hep2flow.store.pull import Progress

PLAIN_LINES = 10  # of pull, at most, where there is no terminal

runs = Typer(name="runs", no_args_is_help=True, help="List, show, compare and delete runs.")


@runs.command("list")
def list_all(as_json: options.JsonOption = False) -> None:
    """All runs, the latest first."""
    from hep2flow.store.runs import list_runs

    views = list_runs(connect_to_store())
    if as_json:
        print(json.dumps([view.model_dump(mode="json") for view in views], indent=2))
        return
    for view in views:
        models = ", ".join(view.run.recipes)
        print(f"{view.run.run_id:<40} {view.status:<12} {view.run.started:%Y-%m-%d %H:%M}  {models}")


@runs.command()
def show(
    run_id: str,
    host: options.HostOption = "",
    namespace: options.NamespaceOption = "",
    token_file: options.TokenFileOption = None,
    cookies_file: options.CookiesFileOption = None,
    ca_file: options.CaFileOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """One run and its stages, by their heartbeats; with --host Kubeflow is queried too, and a run that it ended closed."""
    from hep2flow.execution.progress_display import describe_stage
    from hep2flow.store.layout import stage_name
    from hep2flow.store.runs import show_run

    store = connect_to_store()
    view, state = show_run(store, run_id), None
    if host:
        from hep2flow.execution.kubeflow.client import Kubeflow
        from hep2flow.execution.kubeflow.wait_for_run import sync_with_kubeflow

        kubeflow = Kubeflow(host, namespace, token_file, cookies_file, ca_file)
        view, state = sync_with_kubeflow(store, kubeflow, view)
    if as_json:
        print(view.model_dump_json(indent=2))
        return
    attempt = f", attempt {view.run.attempts} since {view.run.attempt_started:%H:%M}" if view.run.attempts > 1 else ""
    print(f"{run_id}: {view.status}, started {view.run.started:%Y-%m-%d %H:%M} UTC{attempt}")
    if view.run.kubeflow_url:
        print(f"  {view.run.kubeflow_url}{'' if state is None else f' ({state.state})'}")
    if view.status == "lost":
        hint = "" if host or not view.run.kubeflow_run else "; ask Kubeflow for it with --host"
        print(f"  no sign of life since {view.last_sign:%Y-%m-%d %H:%M:%S} UTC{hint}")
    for record in view.stages:
        name = stage_name(record.stage, record.model)
        lost = view.stage_status[name] == "lost"
        print(f"  {name:<24} {'lost: no sign of life' if lost else describe_stage(record)}  {record.key or ''}")
        if record.error:
            print(f"    {record.error}")


@runs.command()
def compare(
    first: Annotated[str, Argument(metavar="RUN", help="A run.")],
    second: Annotated[str, Argument(metavar="RUN", help="Another, or the same one: its models with each other.")],
    as_json: options.JsonOption = False,
    out: Annotated[Path | None, Option(help="Also write the comparison here, in Markdown.")] = None,
) -> None:
    """Two runs' models on the same cells: their difference, and whether it is more than noise."""
    from hep2flow.reporting.comparison import render_pairs
    from hep2flow.stages.compare_runs import compare_runs

    compared = compare_runs(connect_to_store(), first, second)
    text = render_pairs(compared)
    if out is not None:
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_text(text, encoding="utf-8")
        except OSError as error:
            raise UserError(f"--out {out}: cannot be written ({error.strerror}); name a file") from error
    print(json.dumps(compared, indent=2, ensure_ascii=False) if as_json else text.rstrip())


@runs.command()
def delete(run_id: str, yes: Annotated[bool, Option("--yes", help="Do not ask.")] = False) -> None:
    """Delete a run, and what only it refers to; lists what will be deleted, and asks."""
    from rich.filesize import decimal

    from hep2flow.store.delete import delete_run, plan_deletion

    store = connect_to_store()
    deletion = plan_deletion(store, run_id)
    for part in deletion.parts:
        print(f"  {part.key:<80} {decimal(part.bytes):>10}")
    if deletion.stays:
        print(f"stays, because others refer to it: {', '.join(deletion.stays)}")
    objects = sum(part.objects for part in deletion.parts) + len(deletion.cache)
    print(f"{objects} objects, {decimal(sum(part.bytes for part in deletion.parts))}")
    if not yes:
        if not sys.stdin.isatty():
            raise UserError(f"runs delete {run_id}: nobody is here to ask, nothing was deleted; add --yes")
        # Not typer.confirm: after Ctrl-C it ends otherwise than every other command.
        if input("Delete all of this? [y/N]: ").strip().lower() not in {"y", "yes"}:
            print("nothing was deleted")
            return
    delete_run(store, deletion)
    print(f"run {run_id} is deleted")


def predict(
    images: Annotated[list[str], Argument(metavar="IMAGE|DIR…", help="Images, folders or archives of them.")],
    run: options.RunOption,
    model: options.ModelOption = None,
    format: Annotated[options.Format, Option(help="folder: any images; recognised when not given.")] = "auto",
    mask: Annotated[
        str | None, Option(help="The image's mask, or a folder of masks; NAME_mask.png beside it if not.")
    ] = None,
    tta: Annotated[Literal["none", "dihedral"] | None, Option(help="As the run evaluates when not given.")] = None,
    specimen: Annotated[
        bool, Option("--specimen", help="One row per specimen (folder): what most of its cells are.")
    ] = False,
    abstain_below: Annotated[float, Option(metavar="P", min=0, max=1, help="Say abstain below this confidence.")] = 0.0,
) -> None:
    """Classify images by a finished run's network; CSV with probabilities on standard output."""
    from hep2flow.stages.predict import mark_abstentions, specimen_votes
    from hep2flow.stages.predict import predict as stage
    from hep2flow.stages.unlabelled_images import open_images

    store, progress = connect_to_store(), progress_counter("predict")
    with open_images(images, format, mask) as source:
        table = stage(store, run, source, model=model, tta=tta, log=log_to_stderr, progress=progress)
    rows = specimen_votes(table) if specimen else table.drop(columns="specimen")
    log_to_stderr(RESEARCH_ONLY)
    mark_abstentions(rows, abstain_below).to_csv(sys.stdout, index=False, float_format="%.8f", lineterminator="\n")


def export(
    run: options.RunOption,
    onnx: Annotated[Path, Option(metavar="FILE", help="The ONNX file to write.")],
    model: options.ModelOption = None,
) -> None:
    """Write a finished run's network as ONNX, compared with torch's output; labels and preprocessing in its metadata."""
    from hep2flow.stages.trained_models import export as stage

    difference = stage(connect_to_store(), run, model, onnx, log_to_stderr)
    print(f"{onnx}: probabilities are torch's to {difference:.1e}")


def pull(
    run_id: str,
    to: Annotated[Path | None, Option(help="Folder; ./RUN_ID when not given.")] = None,
    only: Literal["report", "metrics", "checkpoints"] | None = None,
) -> None:
    """Copy a run's report, metrics and checkpoints from the store; again: only what is not there yet."""
    from hep2flow.store.pull import pull as pull_run

    folder = to or Path(run_id)
    with _progress() as progress:
        files, fetched = pull_run(connect_to_store(), run_id, folder, only, progress)
    print(f"{len(files)} files in {folder}, {fetched} fetched")


@contextmanager
def _progress() -> Iterator[Progress]:
    """Show a bar on a terminal, a line for each tenth elsewhere; on standard error."""
    as_json = os.environ.get("HEP2FLOW_LOG") == "json"
    if as_json or not sys.stderr.isatty():
        tenths = 0

        def print_tenths(name: str, done: int, total: int) -> None:
            nonlocal tenths
            if (reached := PLAIN_LINES * done // max(total, 1)) > tenths:
                tenths = reached
                plain = f"pull: {100 * done // total} % of {total / 1e6:.1f} MB, {name}"
                fields = {"pull": name, "bytes": done, "total": total}
                print(json.dumps(fields) if as_json else plain, file=sys.stderr, flush=True)

        yield print_tenths
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (BarColumn(bar_width=24), DownloadColumn(), TransferSpeedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(stderr=True)) as bars:
        bar = bars.add_task("", total=None)
        yield lambda name, done, total: bars.update(bar, description=name, completed=done, total=total)
