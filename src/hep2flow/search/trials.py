"""The record of each trial of a sweep, ``sweeps/{key}/trials/{number}.json``: all that a sweep is rebuilt from."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from hep2flow.errors import UserError
from hep2flow.search.space import Changes
from hep2flow.store import layout
from hep2flow.store.s3 import Store
from hep2flow.training.best_epoch import best_epoch

Metric = Literal["accuracy", "loss"]
Status = Literal["running", "finished", "stopped", "failed"]


class CurvePoint(BaseModel):
    """One validated epoch of a trial, as a point of its learning curve.

    Attributes:
        epoch: From 1.
        updates: Optimizer steps so far.
        train_loss: Mean over the epoch's cells.
        val_loss: Over the validation cells that choose.
        val_accuracy: Over the same cells, [0, 1].
        seconds: Since the trial's start, interruptions excluded.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    epoch: int
    updates: int
    train_loss: float
    val_loss: float
    val_accuracy: float
    seconds: float


class Trial(BaseModel):
    """One trial.

    Attributes:
        number: From 0, which has the recipe's own values.
        changes: To the recipe.
        parent: The trial from whose state it continues under other values; None for one from scratch.
        status: stopped by early stopping, failed for a ``reason``, running or interrupted, or finished.
        points: Validated epochs in order, its parents' included.
    """

    model_config = ConfigDict(extra="forbid")

    number: int
    changes: Changes
    parent: int | None = None
    status: Status = "running"
    points: list[CurvePoint] = []
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
    """Read all trials of the sweep with this key, by number.

    Raises:
        UserError: A record is damaged.
    """
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
