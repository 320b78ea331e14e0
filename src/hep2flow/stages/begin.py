"""Begin and finish: a run's own record, written at its two ends and by nobody else."""

from __future__ import annotations

from typing import Any

from hep2flow.errors import UserError
from hep2flow.recipe import Profile, Recipe, load_recipe, read_recipe
from hep2flow.stages.preflight import preflight
from hep2flow.store.layout import run_id_from_job, valid_run_id
from hep2flow.store.runs import RunRecord, RunStatus, finish_run, start_run
from hep2flow.store.s3 import Store
from hep2flow.tuning.space import check_space


def asked(
    source: str,
    format: str,
    seeds: int = 1,
    tune: bool = False,
    trials: int = 0,
    hours: float = 0,
    concurrency: int = 0,
    earlier: str = "",
    judge: int = 0,
    finals: int = 1,
) -> dict[str, Any]:
    """What a run is asked to do beside its recipes, as its record keeps it; of a sweep only where there is one."""
    sweep = {
        "trials": trials,
        "hours": hours,
        "concurrency": concurrency,
        "earlier": earlier,
        "judge": judge,
        "finals": finals,
    }
    return {"source": source, "format": format, "seeds": seeds, **({"tune": sweep} if tune else {})}


def begin(
    store: Store,
    run_id: str,
    job_id: str,
    parameters: dict[str, Any],
    recipes: list[str],
    profile: Profile,
    seeds: int = 1,
) -> tuple[str, list[Recipe], list[Recipe]]:
    """Validate the recipes, write ``runs/{run_id}/run.json``, and return the run's id and the recipes it trains.

    Last come the recipes as they were given, under one seed: those that a sweep searches around.
    run_id:  empty: derived from the pipeline's job id, so that recurring runs and clones each get their own
    parameters: as :func:`asked` makes them
    recipes: names of shipped recipes, or whole recipes as YAML; all share mask and split
    seeds:   how many trainings of each recipe, under successive seeds
    """
    run_id = run_id_of(run_id, job_id)
    given = [recipe_of(text, profile) for text in recipes]
    check_shared(given)
    if "tune" in parameters:
        for recipe in given:
            check_space(recipe)
    read = [seeded for recipe in given for seeded in recipe.with_seeds(seeds)]
    preflight(store, read)
    record = RunRecord(
        run_id=run_id,
        job_id=job_id,
        parameters=parameters,
        recipes={recipe.name: recipe.model_dump(mode="json") for recipe in read},
    )
    start_run(store, record)
    return run_id, read, given


def finish(store: Store, run_id: str, job_id: str, status: RunStatus) -> None:
    """Close the run's record with its true status; another job's run of the same id is left alone."""
    finish_run(store, run_id_of(run_id, job_id), status, job_id)


def run_id_of(run_id: str, job_id: str) -> str:
    """The run id given, or the one that follows from the pipeline's job id."""
    return valid_run_id(run_id) if run_id else run_id_from_job(job_id)


def recipe_of(text: str, profile: Profile) -> Recipe:
    """A recipe as a pipeline parameter gives it: a shipped name, or a whole recipe as YAML."""
    if "\n" not in text and ":" not in text:
        return load_recipe(text, profile)
    return read_recipe(text)


def check_shared(recipes: list[Recipe]) -> None:
    """Refuse recipes that do not share mask and split: models are compared on the same cells or not at all."""
    if not recipes:
        raise UserError("--recipe: a run needs at least one recipe")
    names = [recipe.name for recipe in recipes]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"--recipe: {', '.join(twice)} is named twice; give each recipe a name of its own")
    first = recipes[0]
    for other in recipes[1:]:
        for key in ("mask", "mask_source", "split"):
            if getattr(first.data, key) != getattr(other.data, key):
                raise UserError(
                    f"data.{key}: {first.name} and {other.name} differ; the models of one run share mask and split, "
                    "compare others in separate runs"
                )
