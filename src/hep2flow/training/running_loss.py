"""The loss of an epoch so far, kept on the GPU and copied rarely, because each copy synchronises the device."""

import math

import torch

from hep2flow.data.sampling import Key
from hep2flow.errors import UserError


class DivergedError(UserError):
    """The loss is not finite."""


class RunningLoss:
    """Mean of the losses of an epoch's cells, on mixed and smoothed targets; ``epoch`` and cell ``ids`` are for the error.

    ``cells`` so far are not 0 at the start of an epoch that is resumed; ``total`` is the sum of their losses as of the last
    :meth:`read`.
    """

    def __init__(self, epoch: int, ids: list[str], cells: int, total: float, device: torch.device) -> None:
        self.epoch, self.ids, self.cells, self.total = epoch, ids, cells, total
        self._sum = torch.tensor(total, device=device, dtype=torch.float64)
        self._unread: list[tuple[torch.Tensor, int, list[Key]]] = []

    def add(self, loss: torch.Tensor, update: int, keys: list[Key]) -> None:
        """Add the mean loss of one batch, a scalar on the device, without synchronising."""
        self._sum += loss.double() * len(keys)
        self.cells += len(keys)
        self._unread.append((loss, update, keys))

    def read(self) -> float:
        """The mean so far; DivergedError at the first loss that is not finite, naming its update and cells."""
        if self._unread:
            *losses, self.total = torch.stack([*(loss.double() for loss, *_ in self._unread), self._sum]).tolist()
            for loss, (_, update, keys) in zip(losses, self._unread, strict=True):
                if not math.isfinite(loss):
                    cells = ", ".join(self.ids[index] for _, index, _ in keys[:8])
                    raise DivergedError(
                        f"training diverged: the loss is {loss} at epoch {self.epoch}, update {update} "
                        f"(cells {cells}, …); lower optim.lr or set train.clipping"
                    )
            self._unread.clear()
        return self.total / self.cells
