"""Finalists: the recipes trained in full after a sweep, under seeds that no trial and no judging used."""

from collections.abc import Mapping

from hep2flow.recipe import Recipe

JUDGING_SEEDS = 5  # trainings of each side, by default
NAME_LENGTH = 40
TUNED = "-tuned"


def fresh_seeds(recipe: Recipe, count: int) -> list[int]:
    """Seeds that no trial of the recipe's sweep had: the first judge it, the finalists' follow after JUDGING_SEEDS."""
    return list(range(recipe.train.seed + 1, recipe.train.seed + 1 + count))


def tuned_recipe(recipe: Recipe, changes: Mapping[str, str]) -> Recipe:
    """The recipe with a trial's values, named ``NAME-tuned``."""
    return recipe.changed({**changes, "name": f"{recipe.name[: NAME_LENGTH - len(TUNED)]}{TUNED}"})


def finalists(best: Recipe, count: int) -> list[Recipe]:
    """The best recipe of a sweep under ``count`` seeds after those of the judging."""
    return best.changed({"train.seed": best.train.seed + 1 + JUDGING_SEEDS}).with_seeds(count)


def finalist_names(recipe: Recipe, count: int) -> list[str]:
    """Names of a recipe's finalists, known before its sweep starts: no search space has the seed."""
    return [one.name for one in finalists(tuned_recipe(recipe, {}), count)]
