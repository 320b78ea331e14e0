"""``hep2flow ablate``: one key of a recipe, several values, the same cells."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from hep2flow.cli.common import connect, read_recipe
from hep2flow.cli.options import (
    AddressOption,
    Format,
    FormatOption,
    ProfileName,
    ProfileOption,
    RecipeOption,
    SeedsOption,
    SetOption,
    SourceOption,
)

app = typer.Typer()


@app.command()
def ablate(
    change: Annotated[
        str,
        typer.Argument(
            metavar="KEY=VALUE,VALUE…", help="For example data.mask=none,apply; the first is the reference."
        ),
    ],
    source: SourceOption,
    recipe: RecipeOption,
    format: FormatOption = Format.auto,
    profile: ProfileOption = ProfileName.paper,
    set: SetOption = None,
    seeds: SeedsOption = 1,
    address: AddressOption = None,
    run_id: Annotated[
        str, typer.Option("--run-id", help="Name of the runs, RUN_ID-1, RUN_ID-2…; made from the time when not given.")
    ] = "",
    out: Annotated[
        Path | None, typer.Option("--out", help="Where results are left; out/RUN_ID when not given.")
    ] = None,
) -> None:
    """Train a recipe under each value of one key, on the same cells, and print the differences with their intervals."""
    from hep2flow.execution.local.run import launch
    from hep2flow.execution.run_request import Request
    from hep2flow.recipe import changed_values
    from hep2flow.reporting.ablation import compare, render
    from hep2flow.stages.artifacts import outcomes
    from hep2flow.store.layout import new_run_id, valid_run_id

    key, values = changed_values(change)
    recipes = {value: read_recipe(recipe, profile, [*(set or []), f"{key}={value}"]) for value in values}
    name = run_id or new_run_id()
    names = {value: valid_run_id(f"{name}-{number}") for number, value in enumerate(values, start=1)}
    folder, store = out or Path("out") / name, connect()
    for value in values:
        request = Request(source, [recipes[value]], format.value, profile.value, seeds)
        launch(store, names[value], request, folder / names[value])
    predictions, cells, metrics = outcomes(store, names)
    found = compare(key, predictions, cells, metrics["subset"], selected_on_test=metrics["selected_on_test"])
    (folder / "ablation.json").write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    text = render(found)
    (folder / "ablation.md").write_text(text, encoding="utf-8")
    print(text)
