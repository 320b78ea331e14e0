"""What a run is asked to do, on this machine or on a cluster, and its pipeline's arguments."""

from dataclasses import dataclass
from typing import Any, Literal

from hep2flow.errors import UserError
from hep2flow.recipe import Profile, Recipe, parse_recipe
from hep2flow.search.settings import SweepSettings
from hep2flow.stages.begin import run_parameters, trained_models
from hep2flow.store.address import StoreAddress
from hep2flow.store.runs import read_run
from hep2flow.store.s3 import Store


@dataclass(frozen=True)
class RunRequest:
    """What a run is asked to do."""

    source: str  # folder or archive on this machine, or an s3:// prefix
    recipes: list[Recipe]  # complete; all share mask and split
    format: str = "auto"
    profile: Profile = "paper"
    seeds: int = 1  # trainings of each recipe as it is, under successive seeds
    sweep: SweepSettings | None = None  # of each recipe; None for a run that trains the recipes as they are

    @property
    def pipeline(self) -> Literal["reproduce", "sweep"]:
        """Name of the pipeline that runs it."""
        return "reproduce" if self.sweep is None or self.sweep.beside else "sweep"

    def parameters(self, source: str) -> dict[str, Any]:
        """The request as a run's record stores it; ``source`` as the steps find it."""
        return run_parameters(source, self.format, self.seeds, self.sweep)

    @property
    def models(self) -> dict[str, str]:
        """Models that are trained in full -> the recipe whose sweep each comes from, empty for one trained as it is."""
        return trained_models(self.recipes, self.parameters(self.source))


def read_request(store: Store, run_id: str) -> RunRequest:
    """The request of a run with a sweep, from its record; UserError where it has no sweep."""
    record = read_run(store, run_id)
    if "tune" not in record.parameters:
        raise UserError(f"run {run_id}: has no sweep to resume; repeat its command with --run-id {run_id}")
    swept = dict.fromkeys(filter(None, record.models.values()))
    recipes = [parse_recipe(record.recipes[name], f"run {run_id}") for name in swept]
    plain = {key: record.parameters[key] for key in ("source", "format", "seeds")}
    sweep = SweepSettings(**record.parameters["tune"])
    return RunRequest(**plain, recipes=recipes, profile=recipes[0].profile, sweep=sweep)


def pipeline_arguments(request: RunRequest, source: str, run_id: str, store: StoreAddress) -> dict[str, Any]:
    """Arguments of the unrolled pipeline; everything else the steps read from the run's record.

    ``source`` and ``store`` are as the steps reach them; ``run_id`` is empty for one that follows from the job.
    """
    address = {"endpoint": store.endpoint or "", "region": store.region, "bucket": store.bucket, "prefix": store.prefix}
    shared = {f"store_{name}": value for name, value in address.items()}
    return {"source": source, "format": request.format, "run_id": run_id, **shared}
