"""Population based training (Jaderberg et al. 2017): generations of trials, each going on from a good one's state.

A population of trials trains a part of the way. Those among the best go on as they are; each of the others takes the
state and the values of one of the best, and moves the values a little. Which trial follows which is a function of the
records alone.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable
from typing import Any, Literal

import optuna
import yaml

from hep2flow.errors import UserError
from hep2flow.recipe import Domain, Recipe
from hep2flow.search.distributions import suggest
from hep2flow.search.space import Changes, changed, value_under, wanted, written
from hep2flow.search.trials import Trial

LOSERS = 0.25  # of a generation, replaced; as many of the best replace them
FACTORS = (0.8, 1.25)
ANEW = 0.25  # chance of a value drawn anew in place of a moved one
ATTEMPTS = 20


class Population:
    """The generations of one sweep, made of its trial records.

    trials: in all; ``search.population`` of them are one generation
    epochs: of a whole training
    Raises UserError where the trials are no whole generations, or more of them than there are epochs to share.
    """

    def __init__(self, recipe: Recipe, trials: int, epochs: int, before: Iterable[Trial] = ()) -> None:
        self._recipe, self._size, self._epochs = recipe, recipe.search.population, epochs
        self._generations, rest = divmod(trials, self._size)
        if rest or self._generations < 2:
            raise UserError(
                f"--trials: pbt works in generations of search.population={self._size} trials, at least two of them; "
                f"give a multiple, {max(2, math.ceil(trials / self._size)) * self._size} for example, not {trials}"
            )
        if self._generations * recipe.train.validate_every > epochs:
            most = epochs // recipe.train.validate_every * self._size
            raise UserError(
                f"--trials: {self._generations} generations want as many validated epochs, a trial has "
                f"{epochs // recipe.train.validate_every}; give at most {most}, or a smaller train.validate_every"
            )
        self._ended = {trial.number: trial for trial in before if trial.status != "running"}

    def until(self, number: int) -> int:
        """The epoch at which a trial ends: a validated one."""
        generation, every = number // self._size, self._recipe.train.validate_every
        if generation + 1 == self._generations:
            return self._epochs
        return math.ceil(self._epochs * (generation + 1) / self._generations / every) * every

    def propose(self, number: int) -> Trial | Literal["later"] | None:
        """The trial of this number; ``later`` while trials of the generation before it run, None after the last."""
        generation, place = divmod(number, self._size)
        if generation >= self._generations:
            return None
        chance = random.Random(f"{self._recipe.train.seed}:{number}")
        if generation == 0:
            return Trial(number=number, changes={} if number == 0 else self._drawn(chance))
        numbers = range((generation - 1) * self._size, generation * self._size)
        if not all(before in self._ended for before in numbers):
            return "later"
        ranked = sorted((self._ended[before] for before in numbers), key=self._rank, reverse=True)
        alive = [trial for trial in ranked if trial.status == "finished"]
        if not alive:
            return None
        few = max(1, round(LOSERS * self._size))
        own = self._ended[numbers[place]]
        if own in alive and own not in ranked[-few:]:
            return Trial(number=number, changes=own.changes, parent=own.number)
        parent = chance.choice(alive[:few])
        return Trial(number=number, changes=self._moved(parent.changes, chance), parent=parent.number)

    def learn(self, trial: Trial) -> None:
        """A trial has ended."""
        self._ended[trial.number] = trial

    def unneeded(self, ended: Trial) -> list[int]:
        """Trials whose state nobody goes on from, now that this one has ended."""
        generation = ended.number // self._size
        mates = range(generation * self._size, (generation + 1) * self._size)
        if not all(mate in self._ended for mate in mates):
            return []
        last = generation + 1 == self._generations
        return [*range(max(generation - 1, 0) * self._size, mates.start), *(mates if last else [])]

    def _rank(self, trial: Trial) -> tuple[float, int]:
        """By where it stands now, not by its best: a state is gone on from, not a record."""
        if trial.status != "finished" or not trial.points:
            return float("-inf"), -trial.number
        now = trial.points[-1]
        score = now.val_accuracy if self._recipe.search.metric == "accuracy" else -now.val_loss
        return score, -trial.number

    def _drawn(self, chance: random.Random) -> Changes:
        sampler = optuna.samplers.RandomSampler(seed=chance.randrange(2**31))
        study = optuna.create_study(sampler=sampler)
        return self._possible(lambda: suggest(study.ask(), self._recipe), {})

    def _moved(self, changes: Changes, chance: random.Random) -> Changes:
        def move() -> Changes:
            drawn, moved = self._drawn(chance), Changes()
            for key, domain in self._recipe.search.space.items():
                if wanted(domain, self._recipe, moved):
                    value = value_under(self._recipe, changes, key)
                    anew = key in drawn and chance.random() < ANEW
                    moved[key] = drawn[key] if anew else written(_neighbour(domain, value, chance))
            return moved

        return self._possible(move, changes)

    def _possible(self, make: Any, otherwise: Changes) -> Changes:
        for _ in range(ATTEMPTS):
            changes: Changes = make()
            try:
                changed(self._recipe, changes)
            except UserError:  # values that cannot be had together
                continue
            return changes
        return otherwise


def _neighbour(domain: Domain, value: Any, chance: random.Random) -> Any:
    if domain.choice is not None:
        texts = [written(one) for one in domain.choice]
        at = texts.index(written(value)) if written(value) in texts else 0
        return yaml.safe_load(texts[min(max(at + chance.choice((-1, 1)), 0), len(texts) - 1)])
    low, high = domain.uniform or domain.loguniform or domain.integer or (0, 0)
    if not isinstance(value, (int, float)):
        return low
    moved = min(max(value * chance.choice(FACTORS), low), high)
    return round(moved) if domain.integer else moved
