"""Population based training (Jaderberg et al. 2017): generations of trials, each continuing from a good one's state.

A population trains a part of the way. The good trials continue as they are; each of the worst takes the state and the
values of one of the best (exploit) and perturbs the values a little (explore). Which trial follows which is a function of
the records alone.
"""

import math
import random
from collections.abc import Callable, Iterable
from typing import Any, Literal

import optuna
import yaml

from hep2flow.errors import UserError
from hep2flow.recipe import Domain, Recipe
from hep2flow.search.distributions import suggest_changes
from hep2flow.search.space import Changes, effective_value, is_active, is_possible, yaml_text
from hep2flow.search.trials import Trial

EXPLOIT_FRACTION = 0.25  # of a generation, replaced by as many of the best
PERTURBATION_FACTORS = (0.8, 1.25)
RESAMPLE_PROBABILITY = 0.25  # of a value that is drawn again instead of perturbed
ATTEMPTS = 20


class Population:
    """The generations of one sweep of so many ``trials``, rebuilt from its records; ``epochs`` are a complete training's.

    Raises:
        UserError: The trials make no complete generations, or more of them than there are validated epochs.
    """

    def __init__(self, recipe: Recipe, trials: int, epochs: int, before: Iterable[Trial] = ()) -> None:
        self._recipe, self._size, self._epochs = recipe, recipe.search.population, epochs
        self._generations, rest = divmod(trials, self._size)
        if rest or self._generations < 2:
            raise UserError(
                f"--trials: pbt works in generations of search.population={self._size} trials, at least two of them; "
                f"give a multiple, {max(2, math.ceil(trials / self._size)) * self._size} for example, not {trials}"
            )
        if self._generations > (validated := epochs // recipe.train.validate_every):
            raise UserError(
                f"--trials: {self._generations} generations want as many validated epochs, a trial has "
                f"{validated}; give at most {validated * self._size}, or a smaller train.validate_every"
            )
        self._ended = {trial.number: trial for trial in before if trial.status != "running"}

    def end_epoch(self, number: int) -> int:
        """The epoch at which a trial ends: a validated one."""
        generation, every = number // self._size, self._recipe.train.validate_every
        if generation + 1 == self._generations:
            return self._epochs
        return math.ceil(self._epochs * (generation + 1) / self._generations / every) * every

    def propose(self, number: int) -> Trial | Literal["later"] | None:
        """The trial of this number; ``later`` while trials of the generation before it run, None after the last."""
        generation, position = divmod(number, self._size)
        if generation >= self._generations:
            return None
        rng = random.Random(f"{self._recipe.train.seed}:{number}")
        if generation == 0:
            return Trial(number=number, changes={} if number == 0 else self._sample(rng))
        previous = self._members(generation - 1)
        if not all(member in self._ended for member in previous):
            return "later"
        ranked = sorted((self._ended[member] for member in previous), key=self._rank, reverse=True)
        alive = [trial for trial in ranked if trial.status == "finished"]
        if not alive:
            return None
        exploited = max(1, round(EXPLOIT_FRACTION * self._size))
        own = self._ended[previous[position]]
        if own in alive and own not in ranked[-exploited:]:
            return Trial(number=number, changes=own.changes, parent=own.number)
        parent = rng.choice(alive[:exploited])
        return Trial(number=number, changes=self._explore(parent.changes, rng), parent=parent.number)

    def observe(self, trial: Trial) -> None:
        """Learn from a trial that has ended."""
        self._ended[trial.number] = trial

    def obsolete_states(self, ended: Trial) -> list[int]:
        """Numbers of the trials whose state is not needed any more, now that this one has ended."""
        generation = ended.number // self._size
        members = self._members(generation)
        if not all(member in self._ended for member in members):
            return []
        parents = self._members(generation - 1) if generation else ()
        return [*parents, *(members if generation + 1 == self._generations else ())]

    def _members(self, generation: int) -> range:
        return range(generation * self._size, (generation + 1) * self._size)

    def _rank(self, trial: Trial) -> tuple[float, int]:
        # By its last epoch, not by its best: the next generation continues from that state.
        if trial.status != "finished" or not trial.points:
            return float("-inf"), -trial.number
        last = trial.points[-1]
        score = last.val_accuracy if self._recipe.search.metric == "accuracy" else -last.val_loss
        return score, -trial.number

    def _sample(self, rng: random.Random) -> Changes:
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=rng.randrange(2**31)))
        return self._first_possible(lambda: suggest_changes(study.ask(), self._recipe), {})

    def _explore(self, changes: Changes, rng: random.Random) -> Changes:
        def perturb() -> Changes:
            sampled, perturbed = self._sample(rng), Changes()
            for key, domain in self._recipe.search.space.items():
                if is_active(domain, self._recipe, perturbed):
                    if key in sampled and rng.random() < RESAMPLE_PROBABILITY:
                        perturbed[key] = sampled[key]
                    else:
                        perturbed[key] = yaml_text(_perturb(domain, effective_value(self._recipe, changes, key), rng))
            return perturbed

        return self._first_possible(perturb, changes)

    def _first_possible(self, draw: Callable[[], Changes], otherwise: Changes) -> Changes:
        drawn = (draw() for _ in range(ATTEMPTS))
        return next((changes for changes in drawn if is_possible(self._recipe, changes)), otherwise)


def _perturb(domain: Domain, value: Any, rng: random.Random) -> Any:
    """A neighbouring choice, or the value times a factor, within the domain."""
    if domain.choice is not None:
        texts = [yaml_text(choice) for choice in domain.choice]
        position = texts.index(yaml_text(value)) if yaml_text(value) in texts else 0
        return yaml.safe_load(texts[min(max(position + rng.choice((-1, 1)), 0), len(texts) - 1)])
    low, high = domain.uniform or domain.loguniform or domain.integer or (0, 0)
    if not isinstance(value, (int, float)):
        return low
    perturbed = min(max(value * rng.choice(PERTURBATION_FACTORS), low), high)
    return round(perturbed) if domain.integer else perturbed
