"""One update of the network on one batch."""

from __future__ import annotations

import torch
from timm.utils import ModelEmaV3

from hep2flow.learning.augment import BatchMixer
from hep2flow.learning.batch import Batch
from hep2flow.learning.losses import build_loss
from hep2flow.learning.optim import build_optimizer
from hep2flow.recipe import Recipe

AUTOCAST = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Step:
    """Forward, backward and optimizer step; holds what these carry from one update to the next.

    network:   on its device already
    optimizer: of all its parameters, frozen or not
    average:   the exponential moving average of the weights, None without
    """

    def __init__(self, network: torch.nn.Module, recipe: Recipe, classes: int, device: torch.device) -> None:
        train = recipe.train
        self.train, self.device = train, device
        self.layout = torch.channels_last if train.channels_last else torch.contiguous_format
        self.network = network.to(memory_format=self.layout)
        self.optimizer = build_optimizer(network, recipe.optim)
        self.mixer, self.loss = BatchMixer(recipe, classes), build_loss(recipe.loss)
        self.average = ModelEmaV3(network, decay=train.ema, use_warmup=True) if train.ema is not None else None
        self.forward = torch.compile(network) if train.compile else network
        # fp16 gradients of small losses would vanish; the others have float32's range.
        self.scaler = torch.amp.GradScaler(device.type, enabled=train.precision == "fp16")
        self.updates = 0

    @property
    def candidate(self) -> torch.nn.Module:
        """The network that is validated and kept: the averaged one where there is one."""
        return self.network if self.average is None else self.average.module

    def __call__(self, batch: Batch) -> torch.Tensor:
        """Mix the batch, learn from it, and return its mean loss, a scalar on the device.

        Nothing is learnt where the loss is no finite number: the caller has to look. Mixing draws from the global
        generators, on the host and on the whole batch, before it is cut for accumulation.
        """
        mixed = self.mixer(batch)
        inputs = mixed.inputs(self.device, self.layout)
        targets = mixed.labels.to(self.device, non_blocking=True)
        loss = torch.zeros((), device=self.device)
        for *some, some_targets in zip(
            *(tensor.chunk(self.train.accumulation) for tensor in (*inputs, targets)), strict=True
        ):
            with torch.autocast(self.device.type, AUTOCAST[self.train.precision], self.train.precision != "fp32"):
                part = self.loss(self.forward(*some), some_targets) * (len(some_targets) / len(targets))
            self.scaler.scale(part).backward()
            loss += part.detach()
        if torch.isfinite(loss):
            self._update()
        return loss

    def _update(self) -> None:
        if self.train.clipping is not None:
            self.scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.train.clipping)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.updates += 1
        if self.average is not None:
            self.average.update(self.network, step=self.updates)
