"""The training loop: epochs, validation, and the choice of the best epoch (paper section 3.2)."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from hep2flow.data.batch import Batch, BatchMixer
from hep2flow.data.cell_set import CellSet
from hep2flow.data.sampling import Key, cells_per_epoch, ordered_keys, training_keys
from hep2flow.data.seeding import seeded
from hep2flow.errors import UserError
from hep2flow.network.freezing import Freezing
from hep2flow.network.model import NetworkWithMeasurements, timm_network
from hep2flow.recipe import Recipe
from hep2flow.training.best_epoch import best_epoch
from hep2flow.training.checkpoint import STATE, CheckpointFiles, Description, PartialEpoch, load_state
from hep2flow.training.glibc_malloc import keep_freed_memory
from hep2flow.training.losses import build_loss
from hep2flow.training.optimizer import LearningRate
from hep2flow.training.process_group import ProcessGroup
from hep2flow.training.train_step import TrainStep

# Updates between two readings of the loss: each one synchronises a GPU, and costs a CPU nothing.
READ_EVERY = {"cpu": 1, "cuda": 16}
# Whether checkpoints may be written while the next epoch trains: on a CPU that would only add a copy.
DEFER_WRITES = {"cpu": False, "cuda": True}


@dataclass(frozen=True)
class Epoch:
    """One line of ``metrics.jsonl``; an epoch that was not validated has no ``val_loss`` and ``val_accuracy``."""

    epoch: int  # from 1
    updates: int  # optimizer steps so far
    train_loss: float  # mean over the epoch's cells, on mixed and smoothed targets
    val_loss: float | None
    val_accuracy: float | None
    learning_rate: float  # of the epoch's last update
    images_per_second: float  # validation not counted
    seconds: float  # of the training so far, interruptions not counted
    best: bool = False  # the best epoch so far, whose network is saved


@dataclass(frozen=True)
class Progress:
    """Progress of a running training: epoch (from 1) and update of how many, and the latest figures."""

    epoch: int
    epochs: int
    update: int
    updates: int
    train_loss: float
    val_accuracy: float | None
    images_per_second: float
    seconds_left: float


class TrainingLength(NamedTuple):
    """Length of a training: the recipe's epochs or updates, whichever are fewer."""

    updates_per_epoch: int
    epochs: int
    updates: int


def training_length(recipe: Recipe, labels: torch.Tensor) -> TrainingLength:
    """How many epochs and updates the recipe makes of training cells with these labels, int64 (n,)."""
    per_epoch = math.ceil(cells_per_epoch(labels, recipe.train.sampler) / recipe.train.batch_size)
    limit, updates = recipe.train.max_updates, recipe.train.epochs * per_epoch
    updates = updates if limit is None else min(updates, limit)
    return TrainingLength(per_epoch, math.ceil(updates / per_epoch), updates)


class DivergedError(UserError):
    """The loss is not finite."""


class RunningLoss:
    """Mean of the losses of an epoch's cells, kept on the GPU and copied rarely: each copy synchronises the device.

    ``epoch`` and cell ``ids`` are for the error. ``cells`` so far are not 0 at the start of an epoch that is resumed;
    ``total`` is the sum of their losses as of the last :meth:`read`, on mixed and smoothed targets.
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


@dataclass(frozen=True)
class Callbacks:
    """What the trainer calls; exceptions raised there end the training.

    Attributes:
        save: Called on rank 0 after each epoch and on an early stop. It must write the checkpoint: at once, or, if that is
            ``deferred``, in its own time and thread.
        on_epoch: Called on every rank after each epoch, after ``save``.
        on_progress: Called on every rank at each reading of the loss: every READ_EVERY updates and after an epoch's last.
        stop_requested: Called after ``on_progress``; True on one rank saves the state after this very update, and stops all.
    """

    save: Callable[[CheckpointFiles], None] = lambda files: files.write()
    on_epoch: Callable[[Epoch], None] = lambda epoch: None
    on_progress: Callable[[Progress], None] = lambda progress: None
    stop_requested: Callable[[], bool] = lambda: False


class Trainer:
    """Trains a network by its description's recipe, resuming from the state in ``folder`` if there is one.

    A resumed training ends bit for bit as if it had never stopped; all ranks have to find the same state. Without callbacks
    each checkpoint is written into the folder at once.
    """

    def __init__(
        self,
        network: torch.nn.Module,
        description: Description,
        training: CellSet,
        validation: CellSet,
        folder: Path,
        device: torch.device,
        callbacks: Callbacks | None = None,
    ) -> None:
        if device.type == "cpu":
            keep_freed_memory()
        recipe = description.recipe
        self.network, self.recipe, self.description, self.folder = network, recipe, description, folder
        self.training, self.validation, self.device = training, validation, device
        self.callbacks = callbacks or Callbacks()
        self.length, self.group = training_length(recipe, training.labels), ProcessGroup.current()
        if isinstance(network, NetworkWithMeasurements):
            network.head.standardise(training.measurements)
        if recipe.model.gradient_checkpointing:
            timm_network(network).set_grad_checkpointing()  # type: ignore[operator]
        training.to(device)
        validation.to(device)
        self.step = TrainStep(network.to(device), recipe, device, self.group)
        self.schedule = LearningRate(self.step.optimizer, recipe, self.length.updates, self.length.updates_per_epoch)
        self.freezing, self.mixer = Freezing(network, recipe.optim), BatchMixer(recipe, len(description.labels))

        state = folder / STATE
        lines, self.resumed = load_state(state, self.step) if state.exists() else ([], PartialEpoch())
        self.history = [Epoch(**line) for line in lines]
        self.first_epoch = len(self.history) + 1
        # Where the state was saved after an epoch's last update, only the validation is left: the rate is that update's.
        self.learning_rate = self.schedule.before_update(max(self.step.updates - 1, 0))
        self.val_accuracy = next((e.val_accuracy for e in reversed(self.history) if e.val_accuracy is not None), None)
        self.seconds_before = self.history[-1].seconds if self.history else 0.0
        self.started, self.cells_seen = time.monotonic(), 0

    def run(self) -> Epoch | None:
        """Train to the recipe's end, or until a stop is requested.

        Returns:
            The best epoch, whose network is ``best.safetensors`` in the folder; None if the training was stopped early.

        Raises:
            DivergedError: The loss is not finite.
        """
        epochs = range(self.first_epoch, self.length.epochs + 1)
        # One loader over all epochs: its workers start once, and prepare the next epoch's batches during validation.
        # A worker whose shard is empty takes one cell, which has no weight in the update.
        batches = (batch for epoch in epochs for batch in self._remaining_batches(epoch))
        own_keys = ([keys[position] for position in shard or [0]] for keys, shard in batches)
        loader = self.training.batches(own_keys, self.recipe.train.loader_workers)
        for epoch in epochs:
            seen_before, started = self.cells_seen, time.monotonic()
            train_loss = self.train_epoch(epoch, loader)
            if train_loss is None:
                return None
            self.end_epoch(epoch, train_loss, (self.cells_seen - seen_before) / (time.monotonic() - started))
        return best_epoch(self.history)

    def train_epoch(self, epoch: int, loader: Iterator[Batch]) -> float | None:
        """Make the epoch's remaining updates; returns its mean loss, None if the training was stopped early."""
        seed, batches, resumed = self.recipe.train.seed, self._remaining_batches(epoch), self._resumed(epoch)
        running_loss = RunningLoss(epoch, self.training.ids, resumed.cells, resumed.loss, self.device)
        self.network.train()
        # DistributedDataParallel is built for the parameters that are trained, so freezing others needs a new one.
        if self.freezing.before_epoch(epoch) or epoch == self.first_epoch:
            self.step.wrap_distributed()
        for number, (keys, shard) in enumerate(batches, start=resumed.batches):
            batch = next(loader)
            self.learning_rate = self.schedule.before_update(self.step.updates)
            with seeded(seed, epoch, "mixing", number):
                mixed = self.mixer(batch)
            # Stochastic depth and dropout: each rank draws its own.
            with seeded(seed, epoch, "noise", number, self.group.rank, device=self.device):
                loss = self.step(mixed, shard, len(keys))
            running_loss.add(loss, self.step.updates, keys)
            self.cells_seen += len(keys)
            if self.step.updates % READ_EVERY[self.device.type] and keys is not batches[-1][0]:
                continue
            self._report_progress(epoch, running_loss.read(), batch_size=len(batches[0][0]))
            if self.group.any_rank(self.callbacks.stop_requested(), self.device):
                if self.group.is_first:
                    done = PartialEpoch(number + 1, running_loss.cells, running_loss.total)
                    files = CheckpointFiles.mid_epoch(self.folder, self.step, self._history_lines(), done)
                    self.callbacks.save(files)
                return None
        return running_loss.read()

    def end_epoch(self, epoch: int, train_loss: float, images_per_second: float) -> None:
        """Validate where it is the epoch's turn, record the epoch, and hand its checkpoint on."""
        last, val_loss = epoch == self.length.epochs, None
        if epoch % self.recipe.train.validate_every == 0 or last:
            network = self.step.evaluated_network
            val_loss, self.val_accuracy = validate(network, self.validation, self.recipe, self.device)
        record = Epoch(
            epoch=epoch,
            updates=self.step.updates,
            train_loss=train_loss,
            val_loss=val_loss,
            val_accuracy=self.val_accuracy if val_loss is not None else None,
            learning_rate=self.learning_rate,
            images_per_second=images_per_second,
            seconds=self.seconds_before + time.monotonic() - self.started,
        )
        record = replace(record, best=best_epoch([*self.history, record]) is record)
        self.history.append(record)
        if self.group.is_first:
            step, lines, defer = self.step, self._history_lines(), DEFER_WRITES[self.device.type]
            files = CheckpointFiles.after_epoch(self.folder, step, lines, self.description, last=last, deferred=defer)
            self.callbacks.save(files)
        self.callbacks.on_epoch(record)

    def _remaining_batches(self, epoch: int) -> list[tuple[list[Key], list[int]]]:
        """The epoch's batches that are still to be learnt: all ranks' cells, and the positions of this rank's among them."""
        train, first_update = self.recipe.train, (epoch - 1) * self.length.updates_per_epoch
        keys = training_keys(self.training.labels, epoch, train.batch_size, train.seed, train.sampler)
        remaining = keys[self._resumed(epoch).batches : self.length.updates - first_update]
        return [(batch, self.group.shard(range(len(batch)))) for batch in remaining]

    def _resumed(self, epoch: int) -> PartialEpoch:
        """What the loaded state has done of this epoch."""
        return self.resumed if epoch == self.first_epoch else PartialEpoch()

    def _history_lines(self) -> list[dict[str, Any]]:
        return [asdict(epoch) for epoch in self.history]

    def _report_progress(self, epoch: int, train_loss: float, batch_size: int) -> None:
        elapsed, update, updates = time.monotonic() - self.started, self.step.updates, self.length.updates
        rate, left = self.cells_seen / elapsed, elapsed / self.cells_seen * (updates - update) * batch_size
        progress = Progress(epoch, self.length.epochs, update, updates, train_loss, self.val_accuracy, rate, left)
        self.callbacks.on_progress(progress)


@torch.inference_mode()
def validate(network: torch.nn.Module, cells: CellSet, recipe: Recipe, device: torch.device) -> tuple[float, float]:
    """Mean loss on hard labels, and accuracy in [0, 1], over the cells; no augmentation, no test-time augmentation.

    Each rank evaluates its own cells, every cell once; all return the same.
    """
    network.eval()
    loss_function, group = build_loss(recipe.loss), ProcessGroup.current()
    loss, correct = 0.0, 0
    for batch in cells.batches(ordered_keys(range(group.rank, len(cells), group.world_size), recipe.eval.batch_size)):
        logits, labels = network(*batch.inputs(device)).float().cpu(), batch.labels
        targets = torch.nn.functional.one_hot(labels, logits.shape[1]).float()
        loss += float(loss_function(logits, targets)) * len(labels)
        correct += int((logits.argmax(1) == labels).sum())
    sums = group.all_reduce(torch.tensor([loss, correct], dtype=torch.float64, device=device)).tolist()
    return sums[0] / len(cells), sums[1] / len(cells)
