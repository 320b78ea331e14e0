"""``hep2flow runs``: what ran."""

from __future__ import annotations

import json

import typer

from hep2flow.cli.common import connect
from hep2flow.cli.options import JsonOption

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
def show(run_id: str, as_json: JsonOption = False) -> None:
    """One run and its stages, told from their heartbeats."""
    from hep2flow.cluster.follow import describe
    from hep2flow.store.layout import stage_name
    from hep2flow.store.runs import show_run

    view = show_run(connect(), run_id)
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
