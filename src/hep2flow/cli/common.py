"""What commands share: reaching the store, reading a recipe, showing progress and a result."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from hep2flow.cli.options import ProfileName
from hep2flow.errors import UserError

if TYPE_CHECKING:
    from hep2flow.recipe import Recipe
    from hep2flow.results import StageResult


def connect() -> Any:
    from hep2flow.store.s3 import open_store

    store = open_store()
    store.check()
    return store


def read_recipe(name: str, profile: ProfileName, overrides: list[str] | None) -> Recipe:
    from hep2flow.recipe import load_recipe

    return load_recipe(name, profile.value, overrides or [])


def section(kind: str, values: dict[str, Any]) -> Any:
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


def counter(name: str) -> Any:
    """A progress line on a terminal, nothing elsewhere."""
    if not sys.stderr.isatty():
        return None

    def tell(done: int, total: int) -> None:
        if done == total or done % 50 == 0:
            print(f"\r{name} {done}/{total}", end="\n" if done == total else "", file=sys.stderr, flush=True)

    return tell


def show_result(result: StageResult, as_json: bool) -> None:
    if as_json:
        print(result.model_dump_json(indent=2))
        return
    print(f"{result.stage}: {'there already' if result.cached else 'done'}  {result.uri}")
    for name, value in result.summary.items():
        if value not in (None, "", []):
            print(f"  {name}: {value}")
