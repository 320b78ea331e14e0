"""Seeds of what comes after a sweep: none of its trials had them, and none is used twice."""

from __future__ import annotations

from hep2flow.recipe import Recipe

JUDGING = 5  # trainings of each side, where nobody says how many


def fresh_seeds(recipe: Recipe, count: int, skip: int = 0) -> list[int]:
    """Seeds that no trial of the recipe's sweep had; ``skip`` of them are somebody else's."""
    return [recipe.train.seed + 1 + skip + index for index in range(count)]
