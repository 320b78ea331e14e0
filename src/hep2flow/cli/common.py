"""What commands share: connecting to the store, reading options, showing progress and a result."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hep2flow.cli.options import Profile, Runner
from hep2flow.errors import UserError
from hep2flow.store.layout import new_run_id, valid_run_id

if TYPE_CHECKING:
    from hep2flow.execution.kubernetes.cluster_options import ClusterOptions
    from hep2flow.execution.local.docker_runner import Images
    from hep2flow.recipe import Recipe
    from hep2flow.stage_result import StageResult

DEFAULT_RECIPES = ["convnext-b", "coat-mini"]  # the paper's two models


def connect_to_store() -> Any:
    """Open the store that the environment names, or the embedded one, and check that it answers."""
    from hep2flow.store.open_store import open_store

    store = open_store()
    store.check()
    return store


def read_recipe(name: str, profile: Profile, overrides: list[str] | None) -> Recipe:
    """Load one recipe by ``--recipe``, ``--profile`` and ``--set``."""
    from hep2flow.recipe import load_recipe

    return load_recipe(name, profile, overrides or [])


def read_recipes(names: list[str] | None, profile: Profile, overrides: list[str] | None) -> list[Recipe]:
    """Load several recipes; the paper's two where none is named."""
    return [read_recipe(name, profile, overrides) for name in names or DEFAULT_RECIPES]


def choose_run_id(run_id: str) -> str:
    """Validate ``--run-id``, or make one from date and time where it is empty."""
    return valid_run_id(run_id or new_run_id())


def read_cluster_options(file: Path | None, **overrides: str | None) -> ClusterOptions:
    """Read ``--options``; the options that have a name of their own win, None is not given."""
    from hep2flow.execution.kubernetes.cluster_options import parse_cluster_options

    values: Any = {}
    if file is not None:
        try:
            values = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            what = f"cannot be read as JSON ({error}); name a file as in k8s/overlays"
            raise UserError(f"--options {file}: {what}") from error
        if not isinstance(values, dict):
            raise UserError(f"--options {file}: the options are a JSON object, this is {type(values).__name__}")
    return parse_cluster_options({**values, **{key: value for key, value in overrides.items() if value is not None}})


def container_images(runner: Runner, step: str | None, ray: str | None) -> Images | None:
    """Read ``--runner``, ``--step-image`` and ``--ray-image``; None where the steps are processes."""
    named = {name: image for name, image in (("step", step), ("ray", ray)) if image is not None}
    if runner == "docker":
        from hep2flow.execution.local.docker_runner import Images

        return Images(**named)
    if named:
        raise UserError(f"--{next(iter(named))}-image: only with --runner docker; add it, or leave this out")
    return None


def validate_section(section: str, values: dict[str, Any]) -> Any:
    """Validate command-line values as the recipe's section of that class name validates them."""
    from pydantic import ValidationError

    from hep2flow import recipe

    try:
        return getattr(recipe, section).model_validate(values)
    except ValidationError as error:
        faults = [(str(item["loc"][-1]), item["msg"], item["input"]) for item in error.errors()]
        options = {"mask": "mode", "mask_source": "mask-source", "train_fraction": "train-fraction"}
        texts = [f"--{options.get(key, key)}: {what}, not {given!r}" for key, what, given in faults]
        raise UserError("; ".join(texts)) from error


def progress_counter(name: str) -> Callable[[int, int], None] | None:
    """Return a callback that rewrites one line ``NAME DONE/TOTAL`` on a terminal; None elsewhere."""
    if not sys.stderr.isatty():
        return None

    def show(done: int, total: int) -> None:
        if done == total or done % 50 == 0:
            print(f"\r{name} {done}/{total}", end="\n" if done == total else "", file=sys.stderr, flush=True)

    return show


def print_result(result: StageResult, as_json: bool) -> None:
    """Print a stage's result: its URI and what is not empty in its summary, or all of it as JSON."""
    if as_json:
        print(result.model_dump_json(indent=2))
        return
    print(f"{result.stage}: {'cached' if result.cached else 'done'}  {result.uri}")
    for name, value in result.summary.items():
        if value not in (None, "", []):
            print(f"  {name}: {value}")


def print_report(folder: Path, *lines: str) -> None:
    """Print a finished run's summary, more lines, and the path of its report page."""
    print((folder / "report" / "summary.md").read_text(encoding="utf-8"))
    for line in (*lines, f"report: {folder / 'report' / 'index.html'}"):
        print(line)
