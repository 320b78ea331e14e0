"""The rule for the best epoch, once for trainings and for sweeps, which read their records without torch."""

from collections.abc import Iterable
from typing import Protocol, TypeVar


class Validated(Protocol):
    """An epoch's validation figures; None where the epoch was not validated."""

    @property
    def val_accuracy(self) -> float | None: ...  # noqa: D102

    @property
    def val_loss(self) -> float | None: ...  # noqa: D102


AnyEpoch = TypeVar("AnyEpoch", bound=Validated)


def best_epoch(epochs: Iterable[AnyEpoch]) -> AnyEpoch | None:
    """The epoch of the highest accuracy, among equals of the lowest loss, then the earliest; None if none was validated."""
    validated = [epoch for epoch in epochs if epoch.val_loss is not None]
    return max(validated, key=lambda epoch: (epoch.val_accuracy or 0.0, -(epoch.val_loss or 0.0)), default=None)
