"""Begin and finish: a run's own record, written at its two ends and by nobody else."""

from __future__ import annotations

from typing import Any

from hep2flow.errors import UserError
from hep2flow.recipe import Profile, Recipe, load_recipe, read_recipe
from hep2flow.stages.preflight import preflight
from hep2flow.store.layout import run_id_from_job, valid_run_id
from hep2flow.store.runs import RunRecord, RunStatus, finish_run, start_run
from hep2flow.store.s3 import Store


def begin(
    store: Store,
    run_id: str,
    job_id: str,
    parameters: dict[str, Any],
    recipes: list[str],
    profile: Profile,
    seeds: int = 1,
) -> tuple[str, list[Recipe]]:
    """Validate the recipes, write ``runs/{run_id}/run.json``, and return the run's id and the recipes it trains.

    run_id:  empty: derived from the pipeline's job id, so that recurring runs and clones each get their own
    recipes: names of shipped recipes, or whole recipes as YAML; all share mask and split
    seeds:   how many trainings of each recipe, under successive seeds
    """
    run_id = run_id_of(run_id, job_id)
    check_shared([recipe_of(text, profile) for text in recipes])
    read = [seeded for text in recipes for seeded in recipe_of(text, profile).with_seeds(seeds)]
    preflight(store, read)
    record = RunRecord(
        run_id=run_id,
        job_id=job_id,
        parameters=parameters,
        recipes={recipe.name: recipe.model_dump(mode="json") for recipe in read},
    )
    start_run(store, record)
    return run_id, read


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
