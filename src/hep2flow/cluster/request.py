"""What a run is asked to do, here or on a cluster, and the pipeline and its arguments that do it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from hep2flow.errors import UserError
from hep2flow.recipe import Profile, Recipe, parse_recipe
from hep2flow.stages.begin import asked
from hep2flow.store.runs import show_run
from hep2flow.store.s3 import Store, StoreAddress


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

    def asked(self, source: str) -> dict[str, Any]:
        """The request as a run's record keeps it; source: as the steps find it."""
        sweep = {} if self.sweep is None else asdict(self.sweep)
        return asked(source, self.format, self.seeds, self.sweep is not None, **sweep)


def request_of(store: Store, run_id: str) -> Request:
    """What a run was asked to do, from its record; UserError where it has no sweep."""
    record = show_run(store, run_id).run
    if "tune" not in record.parameters:
        raise UserError(f"run {run_id}: has no sweep to go on with; repeat its command with --run-id {run_id}")
    recipes = [parse_recipe(tree, f"run {run_id}") for tree in record.recipes.values()]
    plain = {key: record.parameters[key] for key in ("source", "format", "seeds")}
    return Request(**plain, recipes=recipes, profile=recipes[0].profile, sweep=Sweep(**record.parameters["tune"]))


def pipeline_of(
    request: Request, source: str, recipes: list[str], run_id: str, store: StoreAddress
) -> tuple[str, dict[str, Any]]:
    """Name of the pipeline, and its arguments.

    source: as the steps find it; recipes: whole recipes as YAML; run_id: empty for one that follows from the job
    """
    arguments: dict[str, Any] = {
        "source": source,
        "format": request.format,
        "recipes": recipes,
        "profile": request.profile,
        "seeds": request.seeds,
        "run_id": run_id,
        "store_endpoint": store.endpoint or "",
        "store_region": store.region,
        "store_bucket": store.bucket,
        "store_prefix": store.prefix,
    }
    if request.sweep is None:
        return "reproduce", arguments
    sweep = asdict(request.sweep)
    return "sweep", {**arguments, "seeds": sweep.pop("finals"), **sweep}
