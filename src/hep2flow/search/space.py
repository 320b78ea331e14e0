"""A recipe's search space: which values there are, and the recipe they make."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from hep2flow.errors import UserError
from hep2flow.recipe import Domain, Recipe, parse_recipe

LARGEST_GRID = 10_000

Changes = dict[str, str]  # key of the recipe -> value as YAML, what `--set` takes


def grid(recipe: Recipe) -> list[Changes]:
    """Every combination of the space's values, a range's being ``search.grid_points`` of it; UserError for too many."""
    combinations: list[Changes] = [{}]
    for key, domain in recipe.search.space.items():
        values = [written(value) for value in _points(domain, recipe.search.grid_points)]
        combinations = [
            {**changes, **({key: value} if wanted(domain, recipe, changes) else {})}
            for changes in combinations
            for value in (values if wanted(domain, recipe, changes) else values[:1])
        ]
        if len(combinations) > LARGEST_GRID:
            raise UserError(
                f"search.algorithm: a grid of this space has more than {LARGEST_GRID:,} points; "
                "lower search.grid_points, leave keys out of search.space, or choose tpe"
            )
    return combinations


def _points(domain: Domain, count: int) -> list[Any]:
    if domain.choice is not None:
        return list(domain.choice)
    low, high = domain.uniform or domain.loguniform or domain.integer or (0, 0)
    shares = [index / (count - 1) for index in range(count)]
    if domain.loguniform is not None:
        return [float(f"{low * (high / low) ** share:.6g}") for share in shares]
    evenly = [low + (high - low) * share for share in shares]
    return list(dict.fromkeys(round(value) for value in evenly)) if domain.integer else evenly


def changed(recipe: Recipe, changes: Mapping[str, str]) -> Recipe:
    """The recipe with a trial's values; UserError where they cannot be had together."""
    return parse_recipe(
        recipe.model_dump(mode="json"), recipe.name, [f"{key}={value}" for key, value in changes.items()]
    )


def check_space(recipe: Recipe) -> None:
    """Refuse an empty space, and values that the recipe could never take: each end of each range, and each choice.

    Raises UserError naming the key.
    """
    space = recipe.search.space
    if not space:
        raise UserError(
            f"{recipe.name}: search.space is empty; say what to try, for example "
            "--set 'search.space={optim.lr: {loguniform: [1.0e-5, 1.0e-3]}}'"
        )
    for key, domain in space.items():
        bounds = domain.uniform or domain.loguniform or domain.integer or domain.choice or ()
        for value in bounds:
            # Under the first condition there is: many a key means nothing without it.
            conditions = {other: written(values[0]) for other, values in domain.when.items()}
            try:
                changed(recipe, {**conditions, key: written(value)})
            except UserError as error:
                raise UserError(f"search.space: {key}: {written(value)} is impossible ({error})") from error


def value_of(recipe: Recipe, key: str) -> Any:
    """The recipe's value of a dotted key, JSON-able; None below a section that is null."""
    value: Any = recipe.model_dump(mode="json")
    for part in key.split("."):
        value = None if value is None else value[part]
    return value


def written(value: Any) -> str:
    """One line of YAML."""
    return yaml.safe_dump(value, default_flow_style=True, width=10**6, sort_keys=False).removesuffix("...\n").strip()


def wanted(domain: Domain, recipe: Recipe, changes: Mapping[str, str]) -> bool:
    """Whether a key's conditions hold for the values chosen before it, and the recipe's own where none was chosen."""
    return all(
        any(same(value_under(recipe, changes, key), one) for one in allowed) for key, allowed in domain.when.items()
    )


def value_under(recipe: Recipe, changes: Mapping[str, str], key: str) -> Any:
    """What the recipe has of a key once it is changed so."""
    return yaml.safe_load(changes[key]) if key in changes else value_of(recipe, key)


def same(one: Any, other: Any) -> bool:
    """Equal, though YAML may write 0 or 0.0; but true is not 1."""
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)
