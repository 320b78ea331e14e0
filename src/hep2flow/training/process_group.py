"""The workers of one training, and what each of them does of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import distributed

Item = TypeVar("Item")


@dataclass(frozen=True)
class Ranks:
    """This worker's number among the workers of a training; (0, 1) where it is the only one."""

    rank: int = 0
    size: int = 1

    @classmethod
    def current(cls) -> Ranks:
        """As torch.distributed was set up in this process."""
        if not distributed.is_initialized():
            return cls()
        return cls(distributed.get_rank(), distributed.get_world_size())

    @property
    def first(self) -> bool:
        """Whether this worker is the one that writes."""
        return self.rank == 0

    def share(self, batch: Sequence[Item]) -> list[Item]:
        """This worker's part of a global batch, as large as the others' but for one pair.

        A cell and its mirror image, the i-th from the front and from the back, stay together and in order: timm mixes a
        batch with its mirror image, so the parts mixed are the batch mixed. Empty where there are fewer pairs than workers.
        """
        half, odd = divmod(len(batch), 2)
        front = range(self.rank, half, self.size)
        middle = [half] if odd and half % self.size == self.rank else []
        back = [len(batch) - 1 - index for index in reversed(front)]
        return [batch[index] for index in (*front, *middle, *back)]

    def total(self, values: torch.Tensor) -> torch.Tensor:
        """Sum over the workers, the same on each."""
        if self.size > 1:
            distributed.all_reduce(values)
        return values

    def any(self, value: bool, device: torch.device) -> bool:
        """Whether it is true on one of the workers, the same on each."""
        return value if self.size == 1 else bool(self.total(torch.tensor(float(value), device=device)))

    def agree(self, value: int, device: torch.device) -> bool:
        """Whether all workers have the same value."""
        return bool(self.total(torch.tensor(float(value), dtype=torch.float64, device=device)) == value * self.size)
