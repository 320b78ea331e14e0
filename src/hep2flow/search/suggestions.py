"""What a sweep tries next: the recipe's own values first, then what Optuna, or a grid, makes of the trials so far."""

from __future__ import annotations

import random
from collections.abc import Iterable

import optuna
from optuna.trial import TrialState, create_trial

from hep2flow.errors import UserError
from hep2flow.recipe import Recipe
from hep2flow.search.distributions import parameters, suggest
from hep2flow.search.space import Changes, changed, grid
from hep2flow.search.trials import Trial

# Of a space of a few choices everything has been tried at some time.
ATTEMPTS = 100
STATES = {"finished": TrialState.COMPLETE, "stopped": TrialState.PRUNED}


class Suggestions:
    """Optuna's study of one recipe's space, made of trial records: nothing of it needs to be kept.

    before: trials of this sweep, or of an earlier one of the same space; those that failed or still run teach nothing
    Optuna's pruned trials are those that early stopping ended: it ranks them by how far they came.
    """

    def __init__(self, recipe: Recipe, before: Iterable[Trial] = ()) -> None:
        self._recipe, self._metric = recipe, recipe.search.metric
        trials = list(before)
        seed = recipe.train.seed + len(trials)
        sampler = optuna.samplers.TPESampler if recipe.search.algorithm == "tpe" else optuna.samplers.RandomSampler
        self._study = optuna.create_study(sampler=sampler(seed=seed), direction="maximize")
        self._grid: list[Changes] | None = None
        if recipe.search.algorithm == "grid":
            self._grid = grid(recipe)
            random.Random(recipe.train.seed).shuffle(self._grid)
        self._tried: set[tuple[tuple[str, str], ...]] = set()
        self._asked: dict[tuple[tuple[str, str], ...], optuna.Trial] = {}
        for trial in trials:
            self.learn(trial)

    def propose(self, number: int) -> Trial | None:
        """The trial of this number: values that were not tried yet and make a recipe; None where none is found any more."""
        changes = self._next()
        return None if changes is None else Trial(number=number, changes=changes)

    def unneeded(self, ended: Trial) -> list[int]:
        """Trials whose state nobody goes on from, now that this one has ended."""
        return [ended.number]

    def _next(self) -> Changes | None:
        if not self._tried:
            self._tried.add(())
            return {}
        if self._grid is not None:
            fresh = next((changes for changes in self._grid if self._fresh(changes)), None)
            if fresh is not None:
                self._tried.add(_identity(fresh))
            return fresh
        for _ in range(ATTEMPTS):
            asked = self._study.ask()
            changes = suggest(asked, self._recipe)
            if self._fresh(changes):
                self._tried.add(_identity(changes))
                self._asked[_identity(changes)] = asked
                return changes
            self._study.tell(asked, state=TrialState.FAIL)
        return None

    def learn(self, trial: Trial) -> None:
        """What became of a trial, of these suggestions or of others."""
        self._tried.add(_identity(trial.changes))
        curve, asked = trial.curve(self._metric), self._asked.pop(_identity(trial.changes), None)
        if asked is not None:
            self._study.tell(asked, state=TrialState.FAIL)  # it stood for a running trial until now
        found = parameters(self._recipe, trial.changes)
        if trial.status in STATES and curve and found is not None:
            values, distributions = found
            self._study.add_trial(
                create_trial(
                    state=STATES[trial.status],
                    value=max(curve.values()),
                    params=values,
                    distributions=distributions,
                    intermediate_values=curve,
                )
            )

    def _fresh(self, changes: Changes) -> bool:
        if _identity(changes) in self._tried:
            return False
        try:
            changed(self._recipe, changes)
        except UserError:  # values that cannot be had together
            return False
        return True


def _identity(changes: Changes) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(changes.items()))
