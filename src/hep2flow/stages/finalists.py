"""Finalists: the recipes that are trained in full once a sweep is over, under seeds that no trial and no judge had."""

from __future__ import annotations

from hep2flow.recipe import parse_recipe, read_recipe
from hep2flow.tuning.seeds import JUDGING, fresh_seeds


def finalists(tuned: list[str], seeds: int, beside: list[str]) -> list[str]:
    """Complete recipes as YAML: each tuned one under ``seeds`` fresh seeds, then those that stand beside them."""
    found = []
    for text in tuned:
        recipe = read_recipe(text)
        (first,) = fresh_seeds(recipe, 1, skip=JUDGING)
        fresh = parse_recipe(recipe.model_dump(mode="json"), recipe.name, [f"train.seed={first}"])
        found += [one.to_yaml() for one in fresh.with_seeds(seeds)]
    return [*found, *beside]
