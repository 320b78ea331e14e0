"""A recipe's search space as Optuna knows it.

Apart from the space itself, because Optuna is slow to import: every run checks its recipes' spaces, few search them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import optuna
import yaml
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from hep2flow.recipe import Domain, Recipe
from hep2flow.search.space import Changes, same, value_under, wanted, written

optuna.logging.set_verbosity(optuna.logging.WARNING)


def distribution(domain: Domain) -> BaseDistribution:
    """Optuna's; choices as YAML text, because Optuna knows no mappings."""
    if domain.uniform is not None:
        return FloatDistribution(*domain.uniform)
    if domain.loguniform is not None:
        return FloatDistribution(*domain.loguniform, log=True)
    if domain.integer is not None:
        return IntDistribution(*domain.integer)
    return CategoricalDistribution([written(value) for value in domain.choice or ()])


def suggest(trial: optuna.trial.BaseTrial, recipe: Recipe) -> Changes:
    """The values that Optuna gives a trial of this recipe's space, in the space's order."""
    chosen: Changes = {}
    for key, domain in recipe.search.space.items():
        if wanted(domain, recipe, chosen):
            value = _ask(trial, key, distribution(domain))
            chosen[key] = value if domain.choice else written(value)
    return chosen


def _ask(trial: optuna.trial.BaseTrial, key: str, kind: BaseDistribution) -> Any:
    if isinstance(kind, CategoricalDistribution):
        return trial.suggest_categorical(key, kind.choices)
    if isinstance(kind, IntDistribution):
        return trial.suggest_int(key, kind.low, kind.high)
    assert isinstance(kind, FloatDistribution)
    return trial.suggest_float(key, kind.low, kind.high, log=kind.log)


def parameters(recipe: Recipe, changes: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, BaseDistribution]] | None:
    """The values of a recipe of this space as Optuna keeps them; None where one lies outside the space.

    changes: to ``recipe``; a key that is not among them has the recipe's own value
    """
    values, distributions = dict[str, Any](), dict[str, BaseDistribution]()
    for key, domain in recipe.search.space.items():
        if not wanted(domain, recipe, changes):
            continue
        value, kind = value_under(recipe, changes, key), distribution(domain)
        if isinstance(kind, CategoricalDistribution):
            value = next((text for text in kind.choices if same(yaml.safe_load(str(text)), value)), None)
        elif not _inside(kind, value):
            value = None
        if value is None:
            return None
        values[key], distributions[key] = value, kind
    return values, distributions


def _inside(kind: BaseDistribution, value: Any) -> bool:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    assert isinstance(kind, (FloatDistribution, IntDistribution))
    return kind.low <= value <= kind.high
