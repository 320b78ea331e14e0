"""One update of the network on one batch, on one worker or several."""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import cast

import torch
from timm.utils import ModelEmaV3
from torch.nn.parallel import DistributedDataParallel

from hep2flow.data.batch import Batch
from hep2flow.network.synchronised_batch_norm import ShardFlag, synchronise
from hep2flow.recipe import Recipe
from hep2flow.training.losses import build_loss
from hep2flow.training.optimizer import build_optimizer
from hep2flow.training.process_group import ProcessGroup

AUTOCAST = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class TrainStep:
    """Forward pass, backward pass and optimizer step, with the state that they carry from one update to the next.

    The ``optimizer`` has all parameters, frozen or not; ``average`` is the exponential moving average of the weights, if
    the recipe has one; ``updates`` counts the optimizer's steps.
    """

    def __init__(
        self, network: torch.nn.Module, recipe: Recipe, device: torch.device, group: ProcessGroup | None = None
    ) -> None:
        train = recipe.train
        self.train, self.device, self.group = train, device, group or ProcessGroup()
        self.shard_flag = ShardFlag()
        if self.group.world_size > 1:
            synchronise(network, self.shard_flag)
        self.layout = torch.channels_last if train.channels_last else torch.contiguous_format
        self.network = network.to(memory_format=self.layout)
        self.parameters = list(self.network.parameters())
        self.optimizer = build_optimizer(network, recipe)
        self.loss = build_loss(recipe.loss)
        self.average = ModelEmaV3(network, decay=train.ema, use_warmup=True) if train.ema is not None else None
        self.compiled = self._compile() if train.compile else self.network
        # fp16 gradients of small losses would underflow; the other formats have float32's range.
        self.scaler = torch.amp.GradScaler(device.type, enabled=train.precision == "fp16")
        self.updates, self.forward = 0, self.compiled

    def _compile(self) -> torch.nn.Module:
        """Compile the network for the two batch sizes of an epoch, as CUDA graphs where possible."""
        # Launching the operations of a small batch one by one takes the host longer than they take a GPU. Gradients that
        # are accumulated, or exchanged between workers, outlive their CUDA graph: such networks are only compiled.
        graphs = self.device.type == "cuda" and self.train.accumulation == 1 and self.group.world_size == 1
        mode = "reduce-overhead" if graphs else "default"
        return cast("torch.nn.Module", torch.compile(self.network, dynamic=False, mode=mode))

    def wrap_distributed(self) -> None:
        """Let several workers average their gradients; call before the first update and after every change of freezing."""
        self.forward = self.compiled if self.group.world_size == 1 else DistributedDataParallel(self.compiled)

    @property
    def evaluated_network(self) -> torch.nn.Module:
        """The network that is validated and saved: the averaged one where there is one."""
        return self.network if self.average is None else self.average.module

    def __call__(
        self, batch: Batch, positions: Sequence[int] | None = None, batch_size: int | None = None
    ) -> torch.Tensor:
        """Learn from a mixed batch. The loss is not checked: one that is not finite spoils the network.

        Args:
            batch: This worker's shard, labels as soft targets.
            positions: Of the shard's cells in the global batch; by default the shard is all of it. Empty where there are
                fewer cells than workers: the shard is then one cell without weight, because every worker has to take part.
            batch_size: Cells in the global batch.

        Returns:
            The global batch's mean loss, a scalar on the device, the same on every worker.
        """
        batch_size = len(batch.labels) if batch_size is None else batch_size
        positions = range(batch_size) if positions is None else positions
        tensors = (*batch.inputs(self.device, self.layout), batch.labels.to(self.device, non_blocking=True))
        loss = torch.zeros((), device=self.device)
        # Accumulation cuts the global batch, so that every worker makes the same passes over the parts of a single worker.
        size = math.ceil(batch_size / self.train.accumulation)
        starts = range(0, batch_size, size)
        for start in starts:
            own = [index for index, position in enumerate(positions) if start <= position < start + size]
            self.shard_flag.is_empty = not own
            *inputs, targets = (_select(tensor, own or [0]) for tensor in tensors)
            # Workers exchange their gradients once, with those of the last part.
            with self._no_exchange() if start != starts[-1] else nullcontext():
                with torch.autocast(self.device.type, AUTOCAST[self.train.precision], self.train.precision != "fp32"):
                    part = self.loss(self.forward(*inputs), targets) * (len(own) / batch_size)
                # DistributedDataParallel averages the gradients, but the sum over the workers is needed.
                self.scaler.scale(part * self.group.world_size).backward()
            loss += part.detach()
        loss = self.group.all_reduce(loss)
        self._update()
        return loss

    def _no_exchange(self) -> AbstractContextManager[None]:
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


def _select(tensor: torch.Tensor, indices: list[int]) -> torch.Tensor:
    """Rows of a tensor; a view where they are adjacent."""
    first, last = indices[0], indices[-1]
    return tensor[first : last + 1] if last - first + 1 == len(indices) else tensor[indices]
