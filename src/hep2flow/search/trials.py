"""What a sweep knows of its trials: one record each, ``sweeps/{key}/trials/{number}.json``, and nothing besides."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from hep2flow.errors import UserError
from hep2flow.search.space import Changes
from hep2flow.store import layout
from hep2flow.store.s3 import Store

Metric = Literal["accuracy", "loss"]
Status = Literal["running", "finished", "stopped", "failed"]


class Point(BaseModel):
    """One validated epoch of a trial.

    epoch:        from 1
    updates:      optimizer steps so far
    val_loss, val_accuracy: over the validation cells that choose
    seconds:      since the trial began, its interruptions left out
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

    number:  from 0; the first has the recipe's own values
    changes: to the recipe
    parent:  the trial whose state it goes on from, under other values; None for one from the start
    status:  stopped is what early stopping ended; failed has a reason; running may also be what was interrupted
    points:  its validated epochs in their order, those of its parents before them
    """

    model_config = ConfigDict(extra="forbid")

    number: int
    changes: Changes
    parent: int | None = None
    status: Status = "running"
    points: list[Point] = []
    reason: str | None = None

    @property
    def best_point(self) -> Point | None:
        """The epoch that a training would keep: the highest accuracy, of equals the lower loss; None before the first."""
        return max(self.points, key=lambda point: (point.val_accuracy, -point.val_loss), default=None)

    def curve(self, metric: Metric) -> dict[int, float]:
        """Epoch -> the best so far; more is better, so that a loss is negative."""
        best, curve = float("-inf"), {}
        for point in self.points:
            best = max(best, point.val_accuracy if metric == "accuracy" else -point.val_loss)
            curve[point.epoch] = best
        return curve

    def score(self, metric: Metric) -> float | None:
        """The best of all its epochs, more is better; None before the first."""
        return max(self.curve(metric).values(), default=None)


def write_trial(store: Store, sweep: str, trial: Trial) -> None:
    """Write the record of a trial of the sweep of this key."""
    store.put_json(_key(sweep, trial.number), trial.model_dump(mode="json"))


def read_trials(store: Store, sweep: str) -> list[Trial]:
    """All trials of a sweep so far, by number; UserError for a record that is none."""
    trials = []
    for item in store.list(f"{layout.sweep_prefix(sweep)}/trials"):
        try:
            trials.append(Trial.model_validate(store.get_json(item.key)))
        except ValidationError as error:
            raise UserError(f"{store.uri(item.key)}: no record of a trial; delete it, and it is tried again") from error
    return sorted(trials, key=lambda trial: trial.number)


def best_trial(trials: list[Trial], metric: Metric) -> Trial | None:
    """The highest score, of equals the lower loss, then the earlier; None where none has a score."""
    scored = [(trial, trial.score(metric)) for trial in trials if trial.status in ("finished", "stopped")]
    ranked = [
        ((score, -min(point.val_loss for point in trial.points), -trial.number), trial)
        for trial, score in scored
        if score is not None
    ]
    return max(ranked, key=lambda pair: pair[0])[1] if ranked else None


def _key(sweep: str, number: int) -> str:
    return f"{layout.sweep_prefix(sweep)}/trials/{number:05d}.json"
