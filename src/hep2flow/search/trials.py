"""Trials of a sweep: their length, and their records ``sweeps/{key}/trials/{number}.json``, all it is rebuilt from."""

import math
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ValidationError

from hep2flow.errors import UserError
from hep2flow.recipe import Recipe
from hep2flow.search.space import Changes
from hep2flow.store import layout
from hep2flow.store.s3 import Store
from hep2flow.training.best_epoch import best_epoch

if TYPE_CHECKING:
    import torch

Metric = Literal["accuracy", "loss"]
Status = Literal["running", "finished", "stopped", "failed"]


class CurvePoint(BaseModel, extra="forbid", frozen=True):
    """One validated epoch of a trial, as a point of its learning curve."""

    epoch: int  # from 1
    updates: int  # optimizer steps so far
    train_loss: float  # mean over the epoch's cells
    val_loss: float  # over the validation cells that choose
    val_accuracy: float  # over the same cells, [0, 1]
    seconds: float  # since the trial's start, interruptions excluded


class Trial(BaseModel, extra="forbid"):
    """One trial."""

    number: int  # from 0, which has the recipe's own values
    changes: Changes  # to the recipe
    parent: int | None = None  # the trial from whose state it continues under other values; None for one from scratch
    status: Status = "running"  # or interrupted; stopped by early stopping, failed for a `reason`, or finished
    points: list[CurvePoint] = []  # validated epochs in order, its parents' included
    reason: str | None = None

    @property
    def best_point(self) -> CurvePoint | None:
        """The epoch whose network a training would save; None before the first."""
        return best_epoch(self.points)

    def curve(self, metric: Metric) -> dict[int, float]:
        """Epoch -> the best value so far; higher is better, so that a loss is negative."""
        best, curve = float("-inf"), {}
        for point in self.points:
            best = max(best, point.val_accuracy if metric == "accuracy" else -point.val_loss)
            curve[point.epoch] = best
        return curve

    def score(self, metric: Metric) -> float | None:
        """The best value of all epochs, higher is better; None before the first."""
        return max(self.curve(metric).values(), default=None)


def write_trial(store: Store, sweep: str, trial: Trial) -> None:
    """Write the record of a trial of the sweep with this key."""
    key = f"{layout.output_prefix('tune', sweep)}/trials/{trial.number:05d}.json"
    store.put_json(key, trial.model_dump(mode="json"))


def read_trials(store: Store, sweep: str) -> list[Trial]:
    """Read all trials of the sweep with this key, by number; UserError where a record is damaged."""
    trials = []
    for item in store.list_objects(f"{layout.output_prefix('tune', sweep)}/trials"):
        try:
            trials.append(Trial.model_validate(store.get_json(item.key)))
        except ValidationError as error:
            raise UserError(f"{store.uri(item.key)}: no record of a trial; delete it, and it is tried again") from error
    return sorted(trials, key=lambda trial: trial.number)


def best_trial(trials: list[Trial], metric: Metric) -> Trial | None:
    """The trial with the highest score, of equals the lowest loss, then the first; None if none has a score."""

    def rank(trial: Trial) -> tuple[float, float, int]:
        return trial.score(metric) or 0.0, -min(point.val_loss for point in trial.points), -trial.number

    scored = [trial for trial in trials if trial.status in ("finished", "stopped") and trial.points]
    return max(scored, key=rank, default=None)


def trial_updates(recipe: Recipe, labels: "torch.Tensor") -> int:
    """Number of updates of a trial: the recipe's own on training cells with these labels, times ``search.length``."""
    from hep2flow.training.trainer import training_length

    return max(1, math.ceil(recipe.search.length * training_length(recipe, labels).updates))


def with_updates(recipe: Recipe, labels: "torch.Tensor", updates: int) -> Recipe:
    """The recipe with exactly so many updates on training cells with these labels, int64 (n,).

    What is counted in epochs or updates, warm-up and gradual unfreezing, keeps its share of the training.
    """
    from hep2flow.training.trainer import training_length

    length, schedule, optim = training_length(recipe, labels), recipe.schedule, recipe.optim
    share = updates / length.updates
    changes = {
        "train.epochs": math.ceil(updates / length.updates_per_epoch),
        "train.max_updates": updates,
        "schedule.warmup_epochs": schedule.warmup_epochs * share,
        "schedule.warmup_updates": round(schedule.warmup_updates * share),
    }
    if optim.unfreeze_every is not None:
        changes["optim.unfreeze_every"] = max(1, round(optim.unfreeze_every * share))
    return recipe.changed(changes)
