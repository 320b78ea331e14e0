"""One run on this machine from its request to its results: refuse early, show it as it happens, leave the results."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hep2flow.cluster.follow import followed
from hep2flow.cluster.local import ended_with_its_steps, run_here
from hep2flow.errors import UserError
from hep2flow.recipe import Profile, Recipe, parse_recipe
from hep2flow.stages.begin import asked, begin
from hep2flow.stages.weights import shippable
from hep2flow.store.pull import pull
from hep2flow.store.runs import RunView, interrupted, show_run
from hep2flow.store.s3 import Store
from hep2flow.termination import TerminatedError


class RunFailedError(Exception):
    """A run ended by a defect of ours; the message says where its whole story is."""


@dataclass(frozen=True)
class Sweep:
    """What a sweep is asked to do; 0 and empty stand for no limit and nothing.

    trials: in all; hours: after which no more are begun; concurrency: at once
    earlier: run, or URI of a sweep, to learn from
    judge:  trainings of the winner, and of the recipe as it is, that judge it
    finals: full trainings of the winner, under successive seeds
    """

    trials: int
    hours: float = 0.0
    concurrency: int = 0
    earlier: str = ""
    judge: int = 5
    finals: int = 1


@dataclass(frozen=True)
class Request:
    """What a run is asked to do.

    source:  folder or archive on this machine, or an s3:// prefix
    recipes: complete; all share mask and split
    seeds:   trainings of each recipe, under successive seeds
    sweep:   what the sweep of each recipe is asked to do; None for a run that trains the recipes as they are
    """

    source: str
    recipes: list[Recipe]
    format: str = "auto"
    profile: Profile = "paper"
    seeds: int = field(default=1)
    sweep: Sweep | None = None


def request_of(store: Store, run_id: str) -> Request:
    """What a run was asked to do, from its record; UserError where it has no sweep."""
    record = show_run(store, run_id).run
    if "tune" not in record.parameters:
        raise UserError(f"run {run_id}: has no sweep to go on with; repeat its command with --run-id {run_id}")
    recipes = [parse_recipe(tree, f"run {run_id}") for tree in record.recipes.values()]
    plain = {key: record.parameters[key] for key in ("source", "format", "seeds")}
    return Request(**plain, recipes=recipes, profile=recipes[0].profile, sweep=Sweep(**record.parameters["tune"]))


def launch(store: Store, run_id: str, request: Request, folder: Path) -> RunView:
    """Run the pipeline here and leave report, metrics and checkpoints in ``folder``.

    Raises UserError for what the user can mend, as the failed stage told it, and RunFailedError for what is our defect.
    SIGTERM is passed on to the steps; once they have saved what they did, TerminatedError is raised.
    """
    source = request.source
    if not source.startswith("s3://"):
        if not Path(source).exists():
            raise UserError(f"--source {source}: there is no such file or folder")
        source = str(Path(source).resolve())
    texts = [shippable(store, recipe).to_yaml() for recipe in request.recipes]
    shared: dict[str, Any] = {"source": source, "format": request.format}
    sweep: dict[str, Any] = {} if request.sweep is None else asdict(request.sweep)
    # The pipeline begins with this too; here it refuses a run id that is taken, and all else, before Ray starts.
    parameters = asked(**shared, seeds=request.seeds, **sweep, tune=request.sweep is not None)
    _, recipes, _ = begin(store, run_id, "", parameters, texts, request.profile, request.seeds)
    seeds = sweep.pop("finals", request.seeds)
    print(f"run {run_id}: {', '.join(recipe.title for recipe in recipes)}", file=sys.stderr)
    address, log = store.address, folder / "log.txt"
    with interrupted(store, run_id), followed(store, run_id), ended_with_its_steps() as terminated:
        view = run_here(
            store,
            "reproduce" if request.sweep is None else "sweep",
            {
                **shared,
                **sweep,
                "seeds": seeds,
                "recipes": texts,
                "profile": request.profile,
                "run_id": run_id,
                "store_endpoint": address.endpoint or "",
                "store_region": address.region,
                "store_bucket": address.bucket,
                "store_prefix": address.prefix,
            },
            log,
        )
        if terminated.is_set():
            print(
                f"asked to end by SIGTERM; the same command with --run-id {run_id} goes on from here", file=sys.stderr
            )
            raise TerminatedError
    if view.status != "succeeded":
        raise _failure(view, log)
    pull(store, run_id, folder)
    return view


def _failure(view: RunView, log: Path) -> Exception:
    failed = [record for record in view.stages if record.status == "failed"]
    for record in failed:
        if record.mendable:
            return UserError(str(record.error))
    what = f"{failed[0].stage}: {failed[0].error}" if failed else f"status {view.status}"
    return RunFailedError(f"run {view.run.run_id} failed, {what}; the whole story is in {log}")
