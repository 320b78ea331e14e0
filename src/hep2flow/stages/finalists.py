"""Finalists: the recipes trained in full after a sweep, under seeds that no trial and no judging used."""

from __future__ import annotations

from collections.abc import Mapping

from hep2flow.recipe import Recipe, parse_recipe
from hep2flow.search.space import apply_changes
from hep2flow.search.trial_budget import JUDGING_SEEDS, fresh_seeds

NAME_LENGTH = 40
TUNED = "-tuned"


def tuned_recipe(recipe: Recipe, changes: Mapping[str, str]) -> Recipe:
    """The recipe with a trial's values, named ``NAME-tuned``."""
    return apply_changes(recipe, {**changes, "name": f"{recipe.name[: NAME_LENGTH - len(TUNED)]}{TUNED}"})


def finalists(best: Recipe, count: int) -> list[Recipe]:
    """The best recipe of a sweep, under ``count`` fresh seeds."""
    (first,) = fresh_seeds(best, 1, skip=JUDGING_SEEDS)
    fresh = parse_recipe(best.model_dump(mode="json"), best.name, [f"train.seed={first}"])
    return fresh.with_seeds(count)


def finalist_names(recipe: Recipe, count: int) -> list[str]:
    """Names of a recipe's finalists, known before its sweep starts: no search space has the seed."""
    return [one.name for one in finalists(tuned_recipe(recipe, {}), count)]
