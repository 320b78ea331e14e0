"""A recipe's search space and its trials as Optuna's.

Apart from the space itself because Optuna is slow to import: every run checks its recipes' spaces, few search them.
"""

from typing import Any

import optuna
import yaml
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from hep2flow.recipe import Domain, Recipe
from hep2flow.search.space import Changes, effective_value, equal_values, is_active, yaml_text
from hep2flow.search.trials import Trial

optuna.logging.set_verbosity(optuna.logging.WARNING)


def to_distribution(domain: Domain) -> BaseDistribution:
    """Optuna's distribution of a key; choices as YAML text, because Optuna takes no mappings."""
    if domain.uniform is not None:
        return FloatDistribution(*domain.uniform)
    if domain.loguniform is not None:
        return FloatDistribution(*domain.loguniform, log=True)
    if domain.integer is not None:
        return IntDistribution(*domain.integer)
    return CategoricalDistribution([yaml_text(value) for value in domain.choice or ()])


def suggest_changes(trial: optuna.Trial, recipe: Recipe) -> Changes:
    """Let Optuna choose a trial's values of the recipe's space, in the space's order."""
    changes: Changes = {}
    for key, domain in recipe.search.space.items():
        if not is_active(domain, recipe, changes):
            continue
        kind = to_distribution(domain)
        if isinstance(kind, CategoricalDistribution):
            changes[key] = str(trial.suggest_categorical(key, kind.choices))
        elif isinstance(kind, IntDistribution):
            changes[key] = yaml_text(trial.suggest_int(key, kind.low, kind.high))
        elif isinstance(kind, FloatDistribution):
            changes[key] = yaml_text(trial.suggest_float(key, kind.low, kind.high, log=kind.log))
    return changes


def to_parameters(recipe: Recipe, changes: Changes) -> tuple[dict[str, Any], dict[str, BaseDistribution]] | None:
    """Optuna's parameters and distributions of the changed recipe; None if a value is outside the space."""
    values, distributions = dict[str, Any](), dict[str, BaseDistribution]()
    for key, domain in recipe.search.space.items():
        if not is_active(domain, recipe, changes):
            continue
        value, kind = effective_value(recipe, changes, key), to_distribution(domain)
        if isinstance(kind, CategoricalDistribution):
            value = next((text for text in kind.choices if equal_values(yaml.safe_load(str(text)), value)), None)
        elif isinstance(kind, (FloatDistribution, IntDistribution)):
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            value = value if number and kind.low <= value <= kind.high else None
        if value is None:
            return None
        values[key], distributions[key] = value, kind
    return values, distributions


def to_optuna_trial(recipe: Recipe, trial: Trial, state: TrialState = TrialState.COMPLETE) -> FrozenTrial | None:
    """Optuna's record of a trial in this state; None if it has no score, or values outside the recipe's space."""
    curve, parameters = trial.curve(recipe.search.metric), to_parameters(recipe, trial.changes)
    if trial.status not in ("finished", "stopped") or not curve or parameters is None:
        return None
    values, distributions = parameters
    return create_trial(
        state=state, value=max(curve.values()), params=values, distributions=distributions, intermediate_values=curve
    )
