"""Finalists: the recipes that are trained in full once a sweep is over, under seeds that no trial and no judge had."""

from __future__ import annotations

from collections.abc import Mapping

from hep2flow.recipe import Recipe, parse_recipe
from hep2flow.search.space import changed
from hep2flow.search.trial_budget import JUDGING, fresh_seeds

NAME_LENGTH = 40
TUNED = "-tuned"


def tuned(recipe: Recipe, changes: Mapping[str, str]) -> Recipe:
    """The recipe with a trial's values, under a name of its own."""
    return changed(recipe, {**changes, "name": f"{recipe.name[: NAME_LENGTH - len(TUNED)]}{TUNED}"})


def finalists(best: Recipe, count: int) -> list[Recipe]:
    """The recipe that a sweep chose, under ``count`` fresh seeds."""
    (first,) = fresh_seeds(best, 1, skip=JUDGING)
    fresh = parse_recipe(best.model_dump(mode="json"), best.name, [f"train.seed={first}"])
    return fresh.with_seeds(count)


def finalist_names(recipe: Recipe, count: int) -> list[str]:
    """Their names, known before the sweep of the recipe begins: no space has the seed."""
    return [one.name for one in finalists(tuned(recipe, {}), count)]
