"""What a run is asked to do, here or on a cluster, and the pipeline and its arguments that do it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from hep2flow.errors import UserError
from hep2flow.recipe import Profile, Recipe, parse_recipe
from hep2flow.stages.begin import asked, models_of
from hep2flow.store.runs import read_run
from hep2flow.store.s3 import Store, StoreAddress


@dataclass(frozen=True)
class Sweep:
    """What a sweep is asked to do; 0 and empty stand for no limit and nothing.

    Attributes:
        trials: In all.
        hours: After which no more are begun.
        concurrency: Trials at once.
        earlier: Run, or URI of a sweep, to learn from.
        judge: Trainings of the winner, and of the recipe as it is, that judge it.
        finals: Full trainings of the winner, under successive seeds.
        beside: Whether the recipes are trained as they are too.
    """

    trials: int
    hours: float = 0.0
    concurrency: int = 0
    earlier: str = ""
    judge: int = 5
    finals: int = 1
    beside: bool = False


@dataclass(frozen=True)
class Request:
    """What a run is asked to do.

    Attributes:
        source: Folder or archive on this machine, or an s3:// prefix.
        recipes: Complete; all share mask and split.
        format: Of the source.
        profile: Of the recipes.
        seeds: Trainings of each recipe as it is, under successive seeds.
        sweep: What the sweep of each recipe is asked to do; None for a run that trains the recipes as they are.
    """

    source: str
    recipes: list[Recipe]
    format: str = "auto"
    profile: Profile = "paper"
    seeds: int = field(default=1)
    sweep: Sweep | None = None

    @property
    def pipeline(self) -> Literal["reproduce", "sweep"]:
        """Which of the two pipelines does it."""
        return "reproduce" if self.sweep is None or self.sweep.beside else "sweep"

    def asked(self, source: str) -> dict[str, Any]:
        """The request as a run's record keeps it; source: as the steps find it."""
        sweep = {} if self.sweep is None else asdict(self.sweep)
        return asked(source, self.format, self.seeds, self.sweep is not None, **sweep)

    @property
    def models(self) -> dict[str, str]:
        """Models that are trained in full -> the recipe whose sweep each comes from, empty for one trained as it is."""
        return models_of(self.recipes, self.asked(self.source))


def request_of(store: Store, run_id: str) -> Request:
    """What a run was asked to do, from its record; UserError where it has no sweep."""
    record = read_run(store, run_id)
    if "tune" not in record.parameters:
        raise UserError(f"run {run_id}: has no sweep to go on with; repeat its command with --run-id {run_id}")
    swept = dict.fromkeys(filter(None, record.models.values()))
    recipes = [parse_recipe(record.recipes[name], f"run {run_id}") for name in swept]
    plain = {key: record.parameters[key] for key in ("source", "format", "seeds")}
    return Request(**plain, recipes=recipes, profile=recipes[0].profile, sweep=Sweep(**record.parameters["tune"]))


def arguments_of(request: Request, source: str, run_id: str, store: StoreAddress) -> dict[str, Any]:
    """Arguments of the unrolled pipeline that does it; all else the steps read from the run's record.

    Args:
        request: What is asked.
        source: As the steps find it.
        run_id: Empty for one that follows from the job.
        store: As the steps reach it.
    """
    return {
        "source": source,
        "format": request.format,
        "run_id": run_id,
        "store_endpoint": store.endpoint or "",
        "store_region": store.region,
        "store_bucket": store.bucket,
        "store_prefix": store.prefix,
    }
