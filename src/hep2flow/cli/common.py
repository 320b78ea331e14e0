"""What commands share: reaching the store, reading a recipe, showing progress and a result."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hep2flow.cli.options import ProfileName, Runner
from hep2flow.errors import UserError

if TYPE_CHECKING:
    from hep2flow.execution.kubernetes.cluster_options import ClusterOptions
    from hep2flow.execution.local.docker_runner import Images
    from hep2flow.recipe import Recipe
    from hep2flow.stage_result import StageResult


def connect() -> Any:
    from hep2flow.store.s3 import open_store

    store = open_store()
    store.check()
    return store


def read_recipe(name: str, profile: ProfileName, overrides: list[str] | None) -> Recipe:
    from hep2flow.recipe import load_recipe

    return load_recipe(name, profile.value, overrides or [])


def read_cluster(file: Path | None, beside: dict[str, Any]) -> ClusterOptions:
    """``--options``, and the options that have a name of their own, which win."""
    from hep2flow.execution.kubernetes.cluster_options import cluster_options

    given: Any = {}
    if file is not None:
        try:
            given = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(
                f"--options {file}: cannot be read as JSON ({error}); name a file as in k8s/overlays"
            ) from error
        if not isinstance(given, dict):
            raise UserError(f"--options {file}: the options are a JSON object, this is {type(given).__name__}")
    return cluster_options({**given, **beside})


def images_of(runner: Runner, step: str | None, ray: str | None) -> Images | None:
    """``--runner``, ``--step-image`` and ``--ray-image``; None where the steps are processes."""
    named = {name: image for name, image in (("step", step), ("ray", ray)) if image is not None}
    if runner is Runner.docker:
        from hep2flow.execution.local.docker_runner import Images

        return Images(**named)
    if named:
        raise UserError(f"--{next(iter(named))}-image: only with --runner docker; add it, or leave this out")
    return None


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
