"""One update of the network on one batch, alone or together with other workers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import cast

import torch
from timm.utils import ModelEmaV3
from torch.nn.parallel import DistributedDataParallel

from hep2flow.data.batch import Batch
from hep2flow.network.synchronised_batch_norm import Counting, synchronise
from hep2flow.recipe import Recipe
from hep2flow.training.losses import build_loss
from hep2flow.training.optimizer import build_optimizer
from hep2flow.training.process_group import Ranks

AUTOCAST = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Step:
    """Forward, backward and optimizer step; holds what these carry from one update to the next.

    network:   on its device already
    optimizer: of all its parameters, frozen or not
    average:   the exponential moving average of the weights, None without
    updates:   how many were made
    """

    def __init__(
        self, network: torch.nn.Module, recipe: Recipe, device: torch.device, ranks: Ranks | None = None
    ) -> None:
        train = recipe.train
        self.train, self.device, self.ranks = train, device, ranks or Ranks()
        self.counting = Counting()
        if self.ranks.size > 1:
            synchronise(network, self.counting)
        self.layout = torch.channels_last if train.channels_last else torch.contiguous_format
        self.network = network.to(memory_format=self.layout)
        self.parameters = list(self.network.parameters())
        self.optimizer = build_optimizer(network, recipe)
        self.loss = build_loss(recipe.loss)
        self.average = ModelEmaV3(network, decay=train.ema, use_warmup=True) if train.ema is not None else None
        self.compiled = self._compile() if train.compile else self.network
        # fp16 gradients of small losses would vanish; the others have float32's range.
        self.scaler = torch.amp.GradScaler(device.type, enabled=train.precision == "fp16")
        self.updates = 0
        self.forward: torch.nn.Module = self.compiled

    def _compile(self) -> torch.nn.Module:
        """The network for the two sizes of batch of an epoch, the last one being smaller; where it can be, as CUDA graphs.

        A batch of 16 or 32 takes a GPU less time than its host needs to launch the operations one by one. The gradients
        of accumulated parts, and those that workers exchange, outlive their graph: these are compiled only.
        """
        graphs = self.device.type == "cuda" and self.train.accumulation == 1 and self.ranks.size == 1
        mode = "reduce-overhead" if graphs else "default"
        return cast("torch.nn.Module", torch.compile(self.network, dynamic=False, mode=mode))

    def connect(self) -> None:
        """Let several workers share their gradients; to be called before the first update, and whenever others move."""
        self.forward = self.compiled if self.ranks.size == 1 else DistributedDataParallel(self.compiled)

    @property
    def candidate(self) -> torch.nn.Module:
        """The network that is validated and kept: the averaged one where there is one."""
        return self.network if self.average is None else self.average.module

    def __call__(self, batch: Batch, positions: Sequence[int] | None = None, whole: int | None = None) -> torch.Tensor:
        """Learn from a mixed batch and return its mean loss, a scalar on the device, the same on every worker.

        batch:     this worker's share, labels as soft targets
        positions: of its cells in the batch of all workers together; empty where the share is one cell that counts for
                   nothing, because there are fewer cells than workers and every worker has to take part
        whole:     cells in the batch of all workers together
        Where this is the only worker both may be left out.
        A loss that is no finite number spoils the network: whoever keeps it has to look at the loss before.
        """
        whole = len(batch.labels) if whole is None else whole
        positions = range(whole) if positions is None else positions
        tensors = (*batch.inputs(self.device, self.layout), batch.labels.to(self.device, non_blocking=True))
        loss = torch.zeros((), device=self.device)
        # The parts of the whole batch, so that every worker makes the same passes, over the same parts as one would alone.
        size = math.ceil(whole / self.train.accumulation)
        starts = range(0, whole, size)
        for start in starts:
            mine = [index for index, position in enumerate(positions) if start <= position < start + size]
            self.counting.counts = bool(mine)
            *some, targets = (_pick(tensor, mine or [0]) for tensor in tensors)
            with self._apart() if start != starts[-1] else nullcontext():
                with torch.autocast(self.device.type, AUTOCAST[self.train.precision], self.train.precision != "fp32"):
                    part = self.loss(self.forward(*some), targets) * (len(mine) / whole)
                # The workers' gradients are averaged; their sum is wanted.
                self.scaler.scale(part * self.ranks.size).backward()
            loss += part.detach()
        loss = self.ranks.total(loss)
        self._update()
        return loss

    def _apart(self) -> AbstractContextManager[None]:
        """Gradients of all parts but the last stay with their worker."""
        return self.forward.no_sync() if isinstance(self.forward, DistributedDataParallel) else nullcontext()

    def _update(self) -> None:
        if self.train.clipping is not None:
            self.scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(self.parameters, self.train.clipping)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.updates += 1
        if self.average is not None:
            self.average.update(self.network, step=self.updates)


def _pick(tensor: torch.Tensor, indices: list[int]) -> torch.Tensor:
    """These of the first dimension; without a copy where they follow each other."""
    first, last = indices[0], indices[-1]
    return tensor[first : last + 1] if last - first + 1 == len(indices) else tensor[indices]
