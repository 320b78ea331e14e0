"""One recipe on some cells, in the parts that the benchmarks of training measure. Needs neither Ray nor a store."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch

from hep2flow.data.batch import Batch, BatchMixer
from hep2flow.data.cell_set import CellSet
from hep2flow.data.sampling import ordered_keys, training_keys
from hep2flow.data.seeding import seeded
from hep2flow.network.model import build_network
from hep2flow.recipe import Recipe
from hep2flow.training.checkpoint import Description
from hep2flow.training.train_step import TrainStep
from hep2flow.training.trainer import Callbacks, Trainer

CPU = torch.device("cpu")


class Cells(NamedTuple):
    """labels: sorted patterns; bits: of the images; training, validation: rows of the Cell table."""

    labels: list[str]
    bits: int
    training: Iterable[dict[str, Any]]
    validation: Iterable[dict[str, Any]]


class TrainingParts:
    """Each method is a part of the recipe's training."""

    def __init__(self, recipe: Recipe, cells: Cells, device: torch.device) -> None:
        self.recipe, self.device = recipe, device
        self.labels, self.bits = cells.labels, cells.bits
        self.training = CellSet(cells.training, cells.labels, cells.bits, recipe, training=True)
        self.validation = CellSet(cells.validation, cells.labels, cells.bits, recipe, training=False)
        train = recipe.train
        self.keys = [
            training_keys(self.training.labels, epoch, train.batch_size, train.seed, train.sampler)
            for epoch in range(1, train.epochs + 1)
        ]
        self.mixer = BatchMixer(recipe, len(self.labels))
        self.images = sum(len(batch) for epoch in self.keys for batch in epoch)

    @cached_property
    def mixed_batches(self) -> list[Batch]:
        """The first epoch's batches, augmented and mixed, on the device."""
        return [
            Batch(*(tensor.to(self.device) for tensor in self.mixer(batch)))
            for batch in self.training.batches(self.keys[0])
        ]

    @cached_property
    def validation_batches(self) -> list[Batch]:
        """The validation's batches, on the device."""
        keys = ordered_keys(range(len(self.validation)), self.recipe.eval.batch_size)
        return [Batch(*(tensor.to(self.device) for tensor in batch)) for batch in self.validation.batches(keys)]

    def build_network(self) -> torch.nn.Module:
        """With the same random weights each time."""
        with seeded(0):
            return build_network(self.recipe.model, len(self.labels)).to(self.device)

    def build_step(self) -> TrainStep:
        """Of a new network."""
        return TrainStep(self.build_network(), self.recipe, self.device)

    def run_training(self, folder: Path, callbacks: Callbacks | None = None) -> None:
        """The training loop, checkpoints included; without callbacks they are written at once."""
        description = Description(self.recipe, self.labels, self.bits)
        network = self.build_network()
        Trainer(network, description, self.training, self.validation, folder, self.device, callbacks).run()

    def run_bare(self, step: TrainStep) -> None:
        """The minimum of any training of the recipe: its epochs' updates by this step, and its validations."""
        for epoch in range(1, len(self.keys) + 1):
            self.run_updates(step)
            if self.is_validated(epoch):
                self.run_validation(step.network)

    def run_updates(self, step: TrainStep) -> None:
        """One epoch's updates, on prepared batches."""
        step.network.train()
        for batch in self.mixed_batches:
            step(batch)

    def run_augmentation(self, epoch: int) -> None:
        """Draw, augment and mix an epoch's batches (from 1)."""
        for batch in self.training.batches(self.keys[epoch - 1]):
            self.mixer(batch)

    @torch.inference_mode()
    def run_validation(self, network: torch.nn.Module) -> None:
        """One validation's forward passes, on prepared batches."""
        network.eval()
        for batch in self.validation_batches:
            network(*batch.inputs(self.device))

    def is_validated(self, epoch: int) -> bool:
        """Whether the training validates after this epoch (from 1)."""
        return epoch % self.recipe.train.validate_every == 0 or epoch == len(self.keys)
