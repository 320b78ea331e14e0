"""A recipe's search space: its values, and the recipe that they make."""

from collections.abc import Mapping
from typing import Any

import yaml

from hep2flow.errors import UserError
from hep2flow.recipe import Domain, Recipe

MAX_GRID = 10_000

Changes = dict[str, str]  # key of the recipe -> value as YAML, as `--set` takes them


def check_space(recipe: Recipe) -> None:
    """Refuse an empty space, and values that the recipe can never take: both ends of each range, and each choice.

    Raises:
        UserError: Names the key.
    """
    if not recipe.search.space:
        raise UserError(
            f"{recipe.name}: search.space is empty; say what to try, for example "
            "--set 'search.space={optim.lr: {loguniform: [1.0e-5, 1.0e-3]}}'"
        )
    for key, domain in recipe.search.space.items():
        for value in domain.uniform or domain.loguniform or domain.integer or domain.choice or ():
            # Under the first of its conditions: many a key is meaningless without them.
            conditions = {other: yaml_text(values[0]) for other, values in domain.when.items()}
            try:
                recipe.changed({**conditions, key: yaml_text(value)})
            except UserError as error:
                raise UserError(f"search.space: {key}: {yaml_text(value)} is impossible ({error})") from error


def is_possible(recipe: Recipe, changes: Changes) -> bool:
    """Whether the recipe can have these values together."""
    try:
        recipe.changed(changes)
    except UserError:
        return False
    return True


def full_grid(recipe: Recipe) -> list[Changes]:
    """Every combination of the space's values, with ``search.grid_points`` values of a range.

    Optuna's GridSampler knows no conditional keys, and its BruteForceSampler no ranges without a step.

    Raises:
        UserError: There are more than MAX_GRID.
    """
    combinations: list[Changes] = [{}]
    for key, domain in recipe.search.space.items():
        values = [yaml_text(value) for value in _grid_values(domain, recipe.search.grid_points)]
        combinations = [
            changes | choice
            for changes in combinations
            for choice in ([{key: value} for value in values] if is_active(domain, recipe, changes) else [{}])
        ]
        if len(combinations) > MAX_GRID:
            raise UserError(
                f"search.algorithm: a grid of this space has more than {MAX_GRID:,} points; "
                "lower search.grid_points, leave keys out of search.space, or choose tpe"
            )
    return combinations


def _grid_values(domain: Domain, count: int) -> list[Any]:
    if domain.choice is not None:
        return list(domain.choice)
    low, high = domain.uniform or domain.loguniform or domain.integer or (0, 0)
    shares = [index / (count - 1) for index in range(count)]
    if domain.loguniform is not None:
        return [float(f"{low * (high / low) ** share:.6g}") for share in shares]
    values = [low + (high - low) * share for share in shares]
    return list(dict.fromkeys(round(value) for value in values)) if domain.integer else values


def is_active(domain: Domain, recipe: Recipe, changes: Mapping[str, str]) -> bool:
    """Whether a key's conditions hold for the values chosen before it, and for the recipe's own of the other keys."""
    conditions = ((effective_value(recipe, changes, key), allowed) for key, allowed in domain.when.items())
    return all(any(equal_values(value, one) for one in allowed) for value, allowed in conditions)


def effective_value(recipe: Recipe, changes: Mapping[str, str], key: str) -> Any:
    """The changed recipe's value of a dotted key."""
    return yaml.safe_load(changes[key]) if key in changes else recipe_value(recipe, key)


def recipe_value(recipe: Recipe, key: str) -> Any:
    """The recipe's value of a dotted key, JSON-able; None below a section that is null."""
    value: Any = recipe.model_dump(mode="json")
    for part in key.split("."):
        value = None if value is None else value[part]
    return value


def equal_values(one: Any, other: Any) -> bool:
    """Whether two YAML values are equal: 0 and 0.0 are, true and 1 are not."""
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


def yaml_text(value: Any) -> str:
    """The value as one line of YAML."""
    return yaml.safe_dump(value, default_flow_style=True, width=10**6, sort_keys=False).removesuffix("...\n").strip()
