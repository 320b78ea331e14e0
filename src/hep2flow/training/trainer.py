"""The training loop: epochs, validation, and the choice of the best epoch (paper section 3.2)."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from hep2flow.data.batch import BatchMixer
from hep2flow.data.cell_set import CellSet
from hep2flow.data.sampling import Key, cells_per_epoch, ordered_keys, training_keys
from hep2flow.data.seeding import seeded
from hep2flow.network.freezing import Freezing
from hep2flow.network.model import WithFeatures, timm_network
from hep2flow.recipe import Recipe
from hep2flow.training.checkpoint import STATE, Begun, Description, Files, after_epoch, in_epoch, load_state
from hep2flow.training.glibc_malloc import keep_freed_memory
from hep2flow.training.losses import build_loss
from hep2flow.training.optimizer import LearningRate
from hep2flow.training.process_group import Ranks
from hep2flow.training.running_loss import RunningLoss
from hep2flow.training.train_step import Step

# Updates between two readings of the loss: a device that works off a queue has to empty it for each, a CPU has none.
READ_EVERY = {"cpu": 1, "cuda": 16}
# Whether the state is written while the training goes on: a GPU trains meanwhile, a CPU would do the same, and copy too.
WRITE_LATER = {"cpu": False, "cuda": True}


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
    """Where a training is: told at every reading of the loss.

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
    folder: Path,
    *,
    device: torch.device,
    keep: Callable[[Files], None],
    on_epoch: Callable[[Epoch], None],
    on_batch: Callable[[Progress], None],
    leave: Callable[[], bool],
) -> Epoch | None:
    """Train the network; returns the best epoch, whose network is ``best.safetensors`` in ``folder``, None where it left.

    folder: a training whose folder has a state goes on from there, and ends as if it had never stopped; all workers have to
            find the same one
    keep:   handed, on the first worker, what the folder shall hold after every epoch, and where the training leaves. It has
            to see to it that it is written, as ``Files.later`` allows in its own time and thread: nobody looks here again
    on_epoch: told of each, on every worker; exceptions it raises end the training, as those of keep and on_batch do
    on_batch, leave: called at every reading of the loss, on every worker: after READ_EVERY updates, and after an epoch's
            last. Where leave says yes on one worker, the state of this very batch is kept and the training ends

    Raises DivergedError where the loss is no longer a number, naming the batch's cells.
    """
    if device.type == "cpu":
        keep_freed_memory()
    train, length, ranks = recipe.train, plan(recipe, training.labels), Ranks.current()
    if isinstance(network, WithFeatures):
        network.head.standardise(training.features)
    if recipe.model.gradient_checkpointing:
        timm_network(network).set_grad_checkpointing()  # type: ignore[operator]
    training.to(device)
    validation.to(device)
    step = Step(network.to(device), recipe, device, ranks)
    rate = LearningRate(step.optimizer, recipe, length.updates, length.updates_per_epoch)
    freezing, mixer = Freezing(network, recipe.optim), BatchMixer(recipe, len(description.labels))
    state = folder / STATE
    before, begun = load_state(state, step) if state.exists() else ([], Begun())
    history = [Epoch(**line) for line in before]

    # Of the last update, should nothing be left to do in this epoch but its validation.
    seen, learning_rate = 0, rate.before_update(max(step.updates - 1, 0))
    accuracy = next((epoch.val_accuracy for epoch in reversed(history) if epoch.val_accuracy is not None), None)
    earlier, started = history[-1].seconds if history else 0.0, time.monotonic()
    first, read_every = len(history) + 1, READ_EVERY[device.type]

    def batches_of(epoch: int) -> list[tuple[list[Key], list[int]]]:
        """What is left to do of it: all workers' cells of each batch, and the places of this worker's among them."""
        keys = training_keys(training.labels, epoch, train.batch_size, train.seed, train.sampler)
        done = begun.batches if epoch == first else 0
        left = keys[done : length.updates - (epoch - 1) * length.updates_per_epoch]
        return [(whole, ranks.share(range(len(whole)))) for whole in left]

    # One stream over all epochs: its workers start once, and have the next epoch's batches ready when this one is validated.
    # A worker without a cell of a batch takes one that counts for nothing.
    loaded = training.batches(
        (
            [whole[place] for place in mine or [0]]
            for epoch in range(first, length.epochs + 1)
            for whole, mine in batches_of(epoch)
        ),
        train.loader_workers,
    )
    for epoch in range(first, length.epochs + 1):
        network.train()
        if freezing.before_epoch(epoch) or epoch == first:
            step.connect()
        done = begun if epoch == first else Begun()
        running = RunningLoss(epoch, training.ids, done.cells, done.loss, device)
        epoch_started, seen_before, batches = time.monotonic(), seen, batches_of(epoch)
        for number, (keys, mine) in enumerate(batches, start=done.batches):
            batch = next(loaded)
            learning_rate = rate.before_update(step.updates)
            with seeded(train.seed, epoch, "mixing", number):
                mixed = mixer(batch)
            # Stochastic depth and dropout: each worker its own.
            with seeded(train.seed, epoch, "noise", number, ranks.rank, device=device):
                loss = step(mixed, mine, len(keys))
            running.add(loss, step.updates, keys)
            seen += len(keys)
            if step.updates % read_every and keys is not batches[-1][0]:
                continue
            train_loss, elapsed = running.read(), time.monotonic() - started
            on_batch(
                Progress(
                    epoch=epoch,
                    epochs=length.epochs,
                    update=step.updates,
                    updates=length.updates,
                    train_loss=train_loss,
                    val_accuracy=accuracy,
                    images_per_second=seen / elapsed,
                    seconds_left=elapsed / seen * (length.updates - step.updates) * len(batches[0][0]),
                )
            )
            if ranks.any(leave(), device):
                if ranks.first:
                    so_far = Begun(number + 1, running.cells, running.total)
                    keep(in_epoch(folder, step, [entry.to_dict() for entry in history], so_far))
                return None
        images_per_second = (seen - seen_before) / (time.monotonic() - epoch_started)
        val_loss = None
        if epoch % train.validate_every == 0 or epoch == length.epochs:
            val_loss, accuracy = validate(step.candidate, validation, recipe, device)
        record = Epoch(
            epoch=epoch,
            updates=step.updates,
            train_loss=running.read(),
            val_loss=val_loss,
            val_accuracy=accuracy if val_loss is not None else None,
            learning_rate=learning_rate,
            images_per_second=images_per_second,
            seconds=earlier + time.monotonic() - started,
            best=val_loss is not None and _better(accuracy, val_loss, best_of(history)),
        )
        history.append(record)
        if ranks.first:
            lines = [entry.to_dict() for entry in history]
            last = epoch == length.epochs
            keep(after_epoch(folder, step, lines, description, last=last, later=WRITE_LATER[device.type]))
        on_epoch(record)
    best = best_of(history)
    assert best is not None, "the last epoch is always validated"
    return best


def best_of(history: list[Epoch]) -> Epoch | None:
    """The epoch whose network is kept: the last of those that were the best so far."""
    return next((epoch for epoch in reversed(history) if epoch.best), None)


def _better(accuracy: float | None, loss: float, best: Epoch | None) -> bool:
    return best is None or (accuracy, -loss) > (best.val_accuracy, -(best.val_loss or 0.0))


@torch.inference_mode()
def validate(network: torch.nn.Module, cells: CellSet, recipe: Recipe, device: torch.device) -> tuple[float, float]:
    """Mean loss on hard labels, and accuracy, over the cells; no augmentation, no TTA.

    Each worker looks at its own cells, every cell once; all return the same.
    """
    network.eval()
    loss_of, ranks = build_loss(recipe.loss), Ranks.current()
    loss, correct = 0.0, 0
    for batch in cells.batches(ordered_keys(range(ranks.rank, len(cells), ranks.size), recipe.eval.batch_size)):
        logits, labels = network(*batch.inputs(device)).float().cpu(), batch.labels
        targets = torch.nn.functional.one_hot(labels, logits.shape[1]).float()
        loss += float(loss_of(logits, targets)) * len(labels)
        correct += int((logits.argmax(1) == labels).sum())
    sums = ranks.total(torch.tensor([loss, correct], dtype=torch.float64, device=device)).tolist()
    return sums[0] / len(cells), sums[1] / len(cells)
