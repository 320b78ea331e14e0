"""The training loop: epochs, validation, and the choice of the best epoch (paper section 3.2)."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from hep2flow.errors import UserError
from hep2flow.learning.checkpoint import Description, save_checkpoint
from hep2flow.learning.data import CellSet
from hep2flow.learning.freezing import Freezing
from hep2flow.learning.losses import build_loss
from hep2flow.learning.model import WithFeatures, timm_network
from hep2flow.learning.optim import LearningRate
from hep2flow.learning.randomness import derived_seed, seeded
from hep2flow.learning.sampling import cells_per_epoch, ordered_keys, training_keys
from hep2flow.learning.step import Step
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


def plan(recipe: Recipe, labels: torch.Tensor) -> Plan:
    """How many epochs and updates the recipe makes of training cells with these labels, int64 (n,)."""
    per_epoch = math.ceil(cells_per_epoch(labels, recipe.train.sampler) / recipe.train.batch_size)
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
    train, length = recipe.train, plan(recipe, training.labels)
    if isinstance(network, WithFeatures):
        network.head.standardise(training.features)
    if recipe.model.gradient_checkpointing:
        timm_network(network).set_grad_checkpointing()  # type: ignore[operator]
    step = Step(network.to(device), recipe, len(description.labels), device)
    rate = LearningRate(step.optimizer, recipe, length.updates, length.updates_per_epoch)
    freezing = Freezing(network, recipe.optim)
    torch.manual_seed(derived_seed(train.seed, "network noise"))  # stochastic depth and dropout

    best: Epoch | None = None
    seen, accuracy, learning_rate = 0, None, 0.0
    started = time.monotonic()
    for epoch in range(1, length.epochs + 1):
        network.train()
        freezing.before_epoch(epoch)
        total = torch.zeros((), device=device)
        epoch_cells, epoch_started = 0, time.monotonic()
        keys = training_keys(training.labels, epoch, train.batch_size, train.seed, train.sampler)
        keys = keys[: length.updates - step.updates]
        for number, batch in enumerate(training.batches(keys, train.loader_workers)):
            learning_rate = rate.before_update(step.updates)
            with seeded(train.seed, epoch, "batch", number):
                loss = step(batch)
            if not torch.isfinite(loss):
                cells = ", ".join(training.ids[index] for _, index, _ in keys[number][:8])
                raise UserError(
                    f"training diverged: the loss is {float(loss)} at epoch {epoch}, update {step.updates + 1} "
                    f"(cells {cells}, …); lower optim.lr or set train.clipping"
                )
            size = len(batch.labels)
            total += loss * size
            epoch_cells += size
            seen += size
            elapsed = time.monotonic() - started
            on_batch(
                Progress(
                    epoch=epoch,
                    epochs=length.epochs,
                    update=step.updates,
                    updates=length.updates,
                    train_loss=float(total) / epoch_cells,
                    val_accuracy=accuracy,
                    images_per_second=seen / elapsed,
                    seconds_left=elapsed / step.updates * (length.updates - step.updates),
                )
            )
        images_per_second = epoch_cells / (time.monotonic() - epoch_started)
        val_loss = None
        if epoch % train.validate_every == 0 or epoch == length.epochs:
            val_loss, accuracy = validate(step.candidate, validation, recipe, device)
        is_best = val_loss is not None and (
            best is None or (accuracy, -val_loss) > (best.val_accuracy, -(best.val_loss or 0.0))
        )
        record = Epoch(
            epoch=epoch,
            updates=step.updates,
            train_loss=float(total) / epoch_cells,
            val_loss=val_loss,
            val_accuracy=accuracy if val_loss is not None else None,
            learning_rate=learning_rate,
            images_per_second=images_per_second,
            seconds=time.monotonic() - started,
            best=is_best,
        )
        if is_best:
            save_checkpoint(checkpoint, step.candidate, description)
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
    for batch in cells.batches(ordered_keys(len(cells), recipe.eval.batch_size)):
        logits, labels = network(*batch.inputs(device)).float().cpu(), batch.labels
        targets = torch.nn.functional.one_hot(labels, logits.shape[1]).float()
        loss += float(loss_of(logits, targets)) * len(labels)
        correct += int((logits.argmax(1) == labels).sum())
    return loss / len(cells), correct / len(cells)
