"""The training loop: epochs, validation, and the choice of the best epoch (paper section 3.2)."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from timm.utils import ModelEmaV3

from hep2flow.errors import UserError
from hep2flow.learning.augment import BatchMixer
from hep2flow.learning.checkpoint import Description, save_checkpoint
from hep2flow.learning.data import CellSet, ordered_keys, training_keys
from hep2flow.learning.losses import build_loss
from hep2flow.learning.optim import LearningRate, build_optimizer
from hep2flow.learning.randomness import derived_seed, seeded
from hep2flow.recipe import Recipe


@dataclass(frozen=True)
class Epoch:
    """One line of ``metrics.jsonl``.

    epoch:         from 1
    updates:       optimizer steps so far
    train_loss:    mean over the epoch's cells, on mixed and smoothed targets
    val_loss, val_accuracy: over the validation cells; None where this epoch was not validated
    learning_rate: of the epoch's last update
    best:          this epoch is the best so far and was kept
    """

    epoch: int
    updates: int
    train_loss: float
    val_loss: float | None
    val_accuracy: float | None
    learning_rate: float
    images_per_second: float
    seconds: float
    best: bool

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)


@dataclass(frozen=True)
class Progress:
    """Where a training is: told after every batch.

    epoch, epochs:   from 1
    update, updates: optimizer steps done, and in all
    """

    epoch: int
    epochs: int
    update: int
    updates: int
    train_loss: float
    val_accuracy: float | None
    images_per_second: float
    seconds_left: float


@dataclass(frozen=True)
class Plan:
    """Length of a training: both bounds of the recipe, whichever comes first."""

    updates_per_epoch: int
    epochs: int
    updates: int


def plan(recipe: Recipe, cells: int) -> Plan:
    """How many epochs and updates the recipe makes of that many training cells."""
    per_epoch = math.ceil(cells / recipe.train.batch_size)
    updates = recipe.train.epochs * per_epoch
    if recipe.train.max_updates is not None:
        updates = min(updates, recipe.train.max_updates)
    return Plan(per_epoch, math.ceil(updates / per_epoch), updates)


def fit(
    network: torch.nn.Module,
    recipe: Recipe,
    training: CellSet,
    validation: CellSet,
    description: Description,
    checkpoint: Path,
    *,
    device: torch.device,
    on_epoch: Callable[[Epoch], None],
    on_batch: Callable[[Progress], None],
) -> Epoch:
    """Train the network and keep its best epoch at ``checkpoint``; returns that epoch.

    on_epoch, on_batch: told of each; exceptions they raise end the training.
    Raises UserError where the loss is no longer a number, naming the batch's cells.
    """
    train, length = recipe.train, plan(recipe, len(training))
    layout = torch.channels_last if train.channels_last else torch.contiguous_format
    network = network.to(device).to(memory_format=layout)
    optimizer = build_optimizer(network, recipe.optim)
    rate = LearningRate(optimizer, recipe, length.updates, length.updates_per_epoch)
    loss_of, mixer = build_loss(recipe.loss), BatchMixer(recipe, len(description.labels))
    average = ModelEmaV3(network, decay=train.ema, use_warmup=True) if train.ema is not None else None
    forward = torch.compile(network) if train.compile else network
    torch.manual_seed(derived_seed(train.seed, "network noise"))  # stochastic depth and dropout

    best: Epoch | None = None
    update, seen, accuracy, learning_rate = 0, 0, None, 0.0
    started = time.monotonic()
    for epoch in range(1, length.epochs + 1):
        network.train()
        total = torch.zeros((), device=device)
        epoch_cells, epoch_started = 0, time.monotonic()
        keys = training_keys(len(training), epoch, train.batch_size, train.seed)[: length.updates - update]
        for batch, (images, labels) in enumerate(training.batches(keys, train.loader_workers)):
            learning_rate = rate.before_update(update)
            with seeded(train.seed, epoch, "batch", batch):
                images, targets = mixer(images, labels)
            images = images.to(device, memory_format=layout, non_blocking=True)
            targets = targets.to(device, non_blocking=True)
            summed = torch.zeros((), device=device)
            for some_images, some_targets in zip(
                images.chunk(train.accumulation), targets.chunk(train.accumulation), strict=True
            ):
                with torch.autocast(device.type, torch.bfloat16, enabled=train.precision == "bf16"):
                    loss = loss_of(forward(some_images), some_targets)
                share = len(some_images) / len(images)
                (loss * share).backward()
                summed += loss.detach() * share
            if not torch.isfinite(summed):
                cells = ", ".join(training.ids[index] for _, index in keys[batch][:8])
                raise UserError(
                    f"training diverged: the loss is {float(summed)} at epoch {epoch}, update {update + 1} "
                    f"(cells {cells}, …); lower optim.lr or set train.clipping"
                )
            if train.clipping is not None:
                torch.nn.utils.clip_grad_norm_(network.parameters(), train.clipping)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            update += 1
            if average is not None:
                average.update(network, step=update)
            total += summed * len(images)
            epoch_cells += len(images)
            seen += len(images)
            elapsed = time.monotonic() - started
            on_batch(
                Progress(
                    epoch=epoch,
                    epochs=length.epochs,
                    update=update,
                    updates=length.updates,
                    train_loss=float(total) / epoch_cells,
                    val_accuracy=accuracy,
                    images_per_second=seen / elapsed,
                    seconds_left=elapsed / update * (length.updates - update),
                )
            )
        images_per_second = epoch_cells / (time.monotonic() - epoch_started)
        candidate = network if average is None else average.module
        val_loss = None
        if epoch % train.validate_every == 0 or epoch == length.epochs:
            val_loss, accuracy = validate(candidate, validation, recipe, device)
        is_best = val_loss is not None and (
            best is None or (accuracy, -val_loss) > (best.val_accuracy, -(best.val_loss or 0.0))
        )
        record = Epoch(
            epoch=epoch,
            updates=update,
            train_loss=float(total) / epoch_cells,
            val_loss=val_loss,
            val_accuracy=accuracy if val_loss is not None else None,
            learning_rate=learning_rate,
            images_per_second=images_per_second,
            seconds=time.monotonic() - started,
            best=is_best,
        )
        if is_best:
            save_checkpoint(checkpoint, candidate, description)
            best = record
        on_epoch(record)
    assert best is not None, "the last epoch is always validated"
    return best


@torch.inference_mode()
def validate(network: torch.nn.Module, cells: CellSet, recipe: Recipe, device: torch.device) -> tuple[float, float]:
    """Mean loss on hard labels, and accuracy, over the cells; no augmentation, no TTA."""
    network.eval()
    loss_of = build_loss(recipe.loss)
    loss, correct = 0.0, 0
    for images, labels in cells.batches(ordered_keys(len(cells), recipe.eval.batch_size)):
        logits = network(images.to(device)).float().cpu()
        targets = torch.nn.functional.one_hot(labels, logits.shape[1]).float()
        loss += float(loss_of(logits, targets)) * len(labels)
        correct += int((logits.argmax(1) == labels).sum())
    return loss / len(cells), correct / len(cells)
