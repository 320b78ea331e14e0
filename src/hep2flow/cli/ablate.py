"""``hep2flow ablate``: one key of a recipe, several values, the same cells."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from hep2flow.cli.common import connect_to_store, read_recipe
from hep2flow.cli.options import (
    AddressOption,
    FormatOption,
    ProfileOption,
    RecipeOption,
    SeedsOption,
    SetOption,
    SourceOption,
)


def ablate(
    change: Annotated[
        str, typer.Argument(metavar="KEY=VALUE,VALUE…", help="As data.mask=none,apply; the first is the reference.")
    ],
    source: SourceOption,
    recipe: RecipeOption,
    format: FormatOption = "auto",
    profile: ProfileOption = "paper",
    set: SetOption = None,
    seeds: SeedsOption = 1,
    address: AddressOption = None,
    run_id: Annotated[
        str, typer.Option("--run-id", help="Name of the runs, RUN_ID-1, RUN_ID-2…; made from the time when not given.")
    ] = "",
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the results; out/RUN_ID when not given.")] = None,
) -> None:
    """Train a recipe under each value of one key, on the same cells, and print the differences with their intervals."""
    from hep2flow.execution.local.run import run_locally
    from hep2flow.execution.run_request import RunRequest
    from hep2flow.recipe import changed_values
    from hep2flow.reporting.comparison import compare_values, render_ablation
    from hep2flow.stages.artifacts import read_family
    from hep2flow.store.layout import new_run_id, valid_run_id

    key, values = changed_values(change)
    recipes = {value: read_recipe(recipe, profile, [*(set or []), f"{key}={value}"]) for value in values}
    name = run_id or new_run_id()
    run_ids = {value: valid_run_id(f"{name}-{number}") for number, value in enumerate(values, start=1)}
    folder, store = out or Path("out") / name, connect_to_store()
    for value in values:
        request = RunRequest(source, [recipes[value]], format, profile, seeds)
        run_locally(store, run_ids[value], request, folder / run_ids[value])
    found = compare_values(key, {value: read_family(store, run_ids[value]) for value in values})
    (folder / "ablation.json").write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    text = render_ablation(found)
    (folder / "ablation.md").write_text(text, encoding="utf-8")
    print(text)
