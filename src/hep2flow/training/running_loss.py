"""The loss of an epoch so far, read from its device seldom: to read is to wait for everything that is queued there."""

from __future__ import annotations

import math

import torch

from hep2flow.data.sampling import Key
from hep2flow.errors import UserError


class DivergedError(UserError):
    """The loss is no longer a number."""


class RunningLoss:
    """Mean of the losses of an epoch's cells, on mixed and smoothed targets.

    cells: seen so far
    total: sum over them, as of the last :meth:`read`

    Args:
        epoch, ids: what a loss that is no number is told with: the epoch, and the cell_id of every cell
        cells, total: what the epoch began with
        device: of the losses
    """

    def __init__(self, epoch: int, ids: list[str], cells: int, total: float, device: torch.device) -> None:
        self.epoch, self.ids, self.cells, self.total = epoch, ids, cells, total
        self._sum = torch.tensor(total, device=device, dtype=torch.float64)
        self._unread: list[tuple[torch.Tensor, int, list[Key]]] = []

    def add(self, loss: torch.Tensor, update: int, keys: list[Key]) -> None:
        """The mean loss of one batch, a scalar on the device; waits for nothing."""
        self._sum += loss.double() * len(keys)
        self.cells += len(keys)
        self._unread.append((loss, update, keys))

    def read(self) -> float:
        """The mean so far; raises DivergedError at the first loss that is no number, naming its update and cells."""
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
