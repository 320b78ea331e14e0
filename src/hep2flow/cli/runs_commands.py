"""``hep2flow runs``: list, show, compare and delete runs."""

import json
import sys
from pathlib import Path
from typing import Annotated

from typer import Argument, Option, Typer

from hep2flow.cli import options
from hep2flow.cli.common import connect_to_store
from hep2flow.errors import UserError

app = Typer(name="runs", no_args_is_help=True, help="List, show, compare and delete runs.")


@app.command("list")
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


@app.command()
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
        from hep2flow.execution.kubeflow.client import Kubeflow, Login
        from hep2flow.execution.kubeflow.wait_for_run import sync_with_kubeflow

        login = Login(token_file, cookies_file, ca_file)
        view, state = sync_with_kubeflow(store, Kubeflow(host, namespace, login), view)
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


@app.command()
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


@app.command()
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
    print(f"{objects} objects, {decimal(deletion.bytes)}")
    if not yes:
        if not sys.stdin.isatty():
            raise UserError(f"runs delete {run_id}: nobody is here to ask, nothing was deleted; add --yes")
        # Not typer.confirm: after Ctrl-C it ends otherwise than every other command.
        if input("Delete all of this? [y/N]: ").strip().lower() not in {"y", "yes"}:
            print("nothing was deleted")
            return
    delete_run(store, deletion)
    print(f"run {run_id} is deleted")
