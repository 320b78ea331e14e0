"""``hep2flow runs``: what ran."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from hep2flow.cli.common import connect
from hep2flow.cli.options import (
    CaFileOption,
    CookiesFileOption,
    HostOption,
    JsonOption,
    NamespaceOption,
    TokenFileOption,
)
from hep2flow.errors import UserError

app = typer.Typer(no_args_is_help=True, help="What ran.")


@app.command("list")
def list_all(as_json: JsonOption = False) -> None:
    """All runs, the latest first."""
    from hep2flow.store.runs import list_runs

    views = list_runs(connect())
    if as_json:
        print(json.dumps([view.model_dump(mode="json") for view in views], indent=2))
        return
    for view in views:
        models = ", ".join(view.run.recipes)
        print(f"{view.run.run_id:<40} {view.status:<12} {view.run.started:%Y-%m-%d %H:%M}  {models}")


@app.command()
def show(
    run_id: str,
    host: HostOption = "",
    namespace: NamespaceOption = "",
    token_file: TokenFileOption = None,
    cookies_file: CookiesFileOption = None,
    ca_file: CaFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """One run and its stages, told from their heartbeats; with --host Kubeflow is asked too, and a run that it ended is
    closed.
    """
    from hep2flow.execution.progress_display import describe
    from hep2flow.store.layout import stage_name
    from hep2flow.store.runs import show_run

    store = connect()
    view, state = show_run(store, run_id), None
    if host:
        from hep2flow.execution.kubeflow.client import Kubeflow, Login
        from hep2flow.execution.kubeflow.wait_for_run import ask_kubeflow

        login = Login(token_file, cookies_file, ca_file)
        view, state = ask_kubeflow(store, Kubeflow(host, namespace, login), view)
    if as_json:
        print(view.model_dump_json(indent=2))
        return
    attempt = f", attempt {view.run.attempts} since {view.run.attempt_started:%H:%M}" if view.run.attempts > 1 else ""
    print(f"{run_id}: {view.status}, started {view.run.started:%Y-%m-%d %H:%M} UTC{attempt}")
    if view.run.kubeflow_url:
        print(f"  {view.run.kubeflow_url}{'' if state is None else f' ({state.state})'}")
    if view.status == "lost":
        ask = "" if host or not view.run.kubeflow_run else "; ask Kubeflow for it with --host"
        print(f"  no sign of life since {view.last_sign:%Y-%m-%d %H:%M:%S} UTC{ask}")
    for record in view.stages:
        name = stage_name(record.stage, record.model)
        lost = view.stage_status[name] == "lost"
        print(f"  {name:<24} {'lost: no sign of life' if lost else describe(record)}  {record.key or ''}")
        if record.error:
            print(f"    {record.error}")


@app.command()
def compare(
    first: Annotated[str, typer.Argument(metavar="RUN", help="A run.")],
    second: Annotated[str, typer.Argument(metavar="RUN", help="Another, or the same one: its models with each other.")],
    as_json: JsonOption = False,
    out: Annotated[Path | None, typer.Option("--out", help="Also write the comparison here, in Markdown.")] = None,
) -> None:
    """Two runs' models on the same cells: their difference, and whether it is more than noise."""
    from hep2flow.reporting.run_comparison import render
    from hep2flow.stages.compare_runs import compare_runs

    compared = compare_runs(connect(), first, second)
    text = render(compared)
    if out is not None:
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_text(text, encoding="utf-8")
        except OSError as error:
            raise UserError(f"--out {out}: cannot be written ({error.strerror}); name a file") from error
    print(json.dumps(compared, indent=2, ensure_ascii=False) if as_json else text.rstrip())


@app.command()
def delete(run_id: str, yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False) -> None:
    """Delete a run, and what only it refers to; says what goes, and asks."""
    from rich.filesize import decimal

    from hep2flow.store.delete import delete_run, plan_deletion

    store = connect()
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
