"""What a sweep tries next: the recipe's own values first, then what Optuna or a grid proposes after the trials so far."""

import random
from collections.abc import Iterable

import optuna
from optuna.trial import TrialState

from hep2flow.recipe import Recipe
from hep2flow.search.distributions import suggest_changes, to_optuna_trial
from hep2flow.search.space import Changes, full_grid, is_possible
from hep2flow.search.trials import Trial

ATTEMPTS = 100  # to find new values: a space of a few choices is exhausted at some time

Identity = frozenset[tuple[str, str]]  # of changes: key and value of each


class Suggestions:
    """Optuna's study of one recipe's space, rebuilt from trial records.

    Those ``before`` are of this sweep, or of an earlier one of the same space; those that failed or still run teach nothing.
    """

    def __init__(self, recipe: Recipe, before: Iterable[Trial] = ()) -> None:
        self._recipe = recipe
        trials = list(before)
        seed = recipe.train.seed + len(trials)
        sampler = optuna.samplers.TPESampler if recipe.search.algorithm == "tpe" else optuna.samplers.RandomSampler
        self._study = optuna.create_study(sampler=sampler(seed=seed), direction="maximize")
        self._grid: list[Changes] | None = None
        if recipe.search.algorithm == "grid":
            self._grid = full_grid(recipe)
            random.Random(recipe.train.seed).shuffle(self._grid)  # so that a part of the grid is spread over it
        self._tried: set[Identity] = set()
        self._pending: dict[Identity, optuna.Trial] = {}
        for trial in trials:
            self.observe(trial)

    def propose(self, number: int) -> Trial | None:
        """The trial of this number: possible values that were not tried yet; None if none is found."""
        if (changes := self._next_changes()) is None:
            return None
        self._tried.add(Identity(changes.items()))
        return Trial(number=number, changes=changes)

    def _next_changes(self) -> Changes | None:
        if not self._tried:
            return {}
        if self._grid is not None:
            return next((changes for changes in self._grid if self._is_new(changes)), None)
        for _ in range(ATTEMPTS):
            candidate = self._study.ask()
            changes = suggest_changes(candidate, self._recipe)
            if self._is_new(changes):
                self._pending[Identity(changes.items())] = candidate
                return changes
            self._study.tell(candidate, state=TrialState.FAIL)
        return None

    def _is_new(self, changes: Changes) -> bool:
        return Identity(changes.items()) not in self._tried and is_possible(self._recipe, changes)

    def observe(self, trial: Trial) -> None:
        """Learn from a trial that has ended, proposed here or not."""
        identity = Identity(trial.changes.items())
        self._tried.add(identity)
        if (pending := self._pending.pop(identity, None)) is not None:
            self._study.tell(pending, state=TrialState.FAIL)  # it stood for the running trial, its record replaces it
        # Optuna ranks pruned trials by how far they came: these are the ones that early stopping ended.
        state = TrialState.PRUNED if trial.status == "stopped" else TrialState.COMPLETE
        if (observed := to_optuna_trial(self._recipe, trial, state)) is not None:
            self._study.add_trial(observed)

    def obsolete_states(self, ended: Trial) -> list[int]:
        """Numbers of the trials whose state is not needed any more, now that this one has ended."""
        return [ended.number]
