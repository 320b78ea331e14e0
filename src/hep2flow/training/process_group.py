"""The workers of one training: rank, share of a batch, and reductions over all of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import distributed

Item = TypeVar("Item")


@dataclass(frozen=True)
class ProcessGroup:
    """This worker's rank among the workers of a training; rank 0 of 1 without torch.distributed."""

    rank: int = 0
    world_size: int = 1

    @classmethod
    def current(cls) -> "ProcessGroup":
        """The group that torch.distributed was initialised with in this process."""
        if not distributed.is_initialized():
            return cls()
        return cls(distributed.get_rank(), distributed.get_world_size())

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0, the only one that writes."""
        return self.rank == 0

    def shard(self, batch: Sequence[Item]) -> list[Item]:
        """This worker's part of a global batch; sizes differ by at most one pair, and may be 0.

        A cell and its mirror image (the i-th from the front and from the back) stay together and in order: timm mixes a
        batch with its mirror image, so that mixing the shards is mixing the batch.
        """
        half, odd = divmod(len(batch), 2)
        front = range(self.rank, half, self.world_size)
        middle = [half] if odd and half % self.world_size == self.rank else []
        back = [len(batch) - 1 - index for index in reversed(front)]
        return [batch[index] for index in (*front, *middle, *back)]

    def all_reduce(self, values: torch.Tensor) -> torch.Tensor:
        """Sum over the workers, in place, the same on each."""
        if self.world_size > 1:
            distributed.all_reduce(values)
        return values

    def any_rank(self, value: bool, device: torch.device) -> bool:
        """Whether the value is true on at least one worker, the same on each."""
        if self.world_size == 1:
            return value
        return bool(self.all_reduce(torch.tensor(float(value), device=device)))

    def all_equal(self, value: int, device: torch.device) -> bool:
        """Whether all workers have the same value."""
        total = self.all_reduce(torch.tensor(float(value), dtype=torch.float64, device=device))
        return bool(total == value * self.world_size)
