"""Begin: validates a run and writes its record before anything runs; each step reads its recipe from that record."""

import math
from collections import Counter
from importlib import metadata
from importlib.util import find_spec
from itertools import product
from typing import Any

from hep2flow.errors import UserError
from hep2flow.recipe import Profile, Recipe, load_recipe, parse_recipe, read_recipe
from hep2flow.search.settings import SweepSettings
from hep2flow.search.space import check_space
from hep2flow.stages.finalists import finalist_names, finalists
from hep2flow.stages.initial_weights import resolve_weights
from hep2flow.store.layout import run_id_from_job, valid_run_id
from hep2flow.store.runs import RunRecord, RunStatus, start_run
from hep2flow.store.s3 import Store
from hep2flow.store.stage_cache import commit, lookup, stage_key
from hep2flow.store.weights_mirror import find_mirrored

MAX_GROUPS = 64


def run_parameters(source: str, format: str, seeds: int = 1, sweep: SweepSettings | None = None) -> dict[str, Any]:
    """What a run is asked to do beside its recipes, as its record stores it.

    ``source`` is where the steps find the cells, ``seeds`` the number of trainings of each recipe as it is, under successive
    seeds; without a ``sweep`` the recipes are only trained as they are.
    """
    parameters = {"source": source, "format": format, "seeds": seeds}
    return parameters if sweep is None else {**parameters, "tune": sweep.model_dump(mode="json")}


def begin(
    store: Store,
    run_id: str,
    parameters: dict[str, Any],
    recipes: list[Recipe],
    attempt: str = "",
    status: RunStatus = "running",
) -> RunRecord:
    """Validate what a run is asked to do, and write ``runs/{run_id}/run.json``.

    ``parameters`` are as :func:`run_parameters` makes them; ``recipes``, under one seed each, all share mask and split;
    ``attempt`` is the pipeline's job, where it is known already; ``status`` is submitted until Kubeflow has started it.

    Raises:
        UserError: The recipes do not go together, a network or its weights cannot be had, or the run id is taken.
    """
    check_same_data(recipes)
    swept = recipes if "tune" in parameters else []
    for recipe in swept:
        check_space(recipe)
    recorded = [*swept, *_recipes_as_they_are(recipes, parameters)]
    preflight(store, recorded)
    record = RunRecord(
        run_id=valid_run_id(run_id),
        attempt=attempt,
        status=status,
        parameters=parameters,
        recipes={recipe.name: recipe.model_dump(mode="json") for recipe in recorded},
        models=trained_models(recipes, parameters),
    )
    return start_run(store, record)


def preflight(store: Store, recipes: list[Recipe]) -> None:
    """Check that timm accepts every network and image size, and that the initial weights are available.

    Where timm is not installed (a pipeline's step without torch), the training makes the other checks.

    Raises:
        UserError: A check failed.
    """
    timm = find_spec("timm") is not None
    for recipe in recipes:
        model = recipe.model
        if timm:
            network = model.model_dump(mode="json", exclude={"weights"})
            inputs = {"model": network, "freeze": recipe.optim.freeze, "timm": metadata.version("timm")}
            # Cached, because timm takes seconds to import.
            if lookup(store, "network", key := stage_key("network", inputs)) is None:
                from hep2flow.network.freezing import check_freezing
                from hep2flow.network.model import check_network

                check_network(model)
                check_freezing(recipe)
                commit(store, "network", key, {"output": None})
        if timm or model.weights != "pretrained" or find_mirrored(store, model.network) is not None:
            resolve_weights(store, model)


def trained_models(recipes: list[Recipe], parameters: dict[str, Any]) -> dict[str, str]:
    """Models that a run trains in full -> the recipe whose sweep each comes from, empty for one trained as it is."""
    swept, finals = (recipes, parameters["tune"]["finals"]) if "tune" in parameters else ([], 0)
    models = {name: recipe.name for recipe in swept for name in finalist_names(recipe, finals)}
    return models | {recipe.name: "" for recipe in _recipes_as_they_are(recipes, parameters)}


def _recipes_as_they_are(recipes: list[Recipe], parameters: dict[str, Any]) -> list[Recipe]:
    if "tune" in parameters and not parameters["tune"]["beside"]:
        return []
    return [one for recipe in recipes for one in recipe.with_seeds(parameters["seeds"])]


def group_models(models: list[str]) -> list[str]:
    """Models that one task of a pipeline trains one after the other, names with spaces between: 64 groups at most.

    Argo stores what it knows of a run in one object of a megabyte, compressed: five to six kilobytes for each group.
    """
    size = math.ceil(len(models) / MAX_GROUPS)
    return [" ".join(models[start : start + size]) for start in range(0, len(models), size)]


def run_id_of(run_id: str, job_id: str) -> str:
    """The run id given, or the one that follows from the pipeline's job id."""
    return valid_run_id(run_id) if run_id else run_id_from_job(job_id)


def recipe_of_run(record: RunRecord, name: str = "") -> Recipe:
    """A recipe of the run by its name; without one the first: all have mask and split in common."""
    found = record.recipes.get(name or next(iter(record.recipes)))
    if found is None:
        raise UserError(f"run {record.run_id}: has no recipe {name}; it has {', '.join(record.recipes)}")
    return parse_recipe(found, f"run {record.run_id}")


def recipe_of_model(store: Store, record: RunRecord, model: str, sweep: str) -> Recipe:
    """The recipe that a model of the run is trained by; ``sweep`` is the URI of the one that chose it, or empty."""
    if not sweep:
        return recipe_of_run(record, model)
    best = read_recipe(store.get_bytes(f"{store.key(sweep)}/best.yaml").decode(), sweep)
    return {recipe.name: recipe for recipe in finalists(best, record.parameters["tune"]["finals"])}[model]


def resolve_recipe(store: Store, text: str, profile: Profile) -> Recipe:
    """A recipe from a pipeline parameter: a shipped name, the URI of one in the store, or a complete one as YAML."""
    if text.startswith("s3://"):
        return read_recipe(store.get_bytes(store.key(text)).decode(), text)
    if "\n" not in text and ":" not in text:
        return load_recipe(text, profile)
    return read_recipe(text)


def check_same_data(recipes: list[Recipe]) -> None:
    """Refuse recipes that do not share mask and split: models are compared on the same cells or not at all."""
    if not recipes:
        raise UserError("--recipe: a run needs at least one recipe")
    names = Counter(recipe.name for recipe in recipes)
    if twice := sorted(name for name, count in names.items() if count > 1):
        raise UserError(f"--recipe: {', '.join(twice)} is named twice; give each recipe a name of its own")
    first = recipes[0]
    for other, key in product(recipes[1:], ("mask", "mask_source", "split")):
        if getattr(first.data, key) != getattr(other.data, key):
            raise UserError(
                f"data.{key}: {first.name} and {other.name} differ; the models of one run share mask and split, "
                "compare others in separate runs"
            )
