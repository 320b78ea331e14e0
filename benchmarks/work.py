"""One recipe on some cells, in the parts that the benchmarks of training measure. Needs neither Ray nor a store."""

from __future__ import annotations

from collections.abc import Callable, Iterable
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
from hep2flow.training.checkpoint import Description, Files
from hep2flow.training.train_step import Step
from hep2flow.training.trainer import Progress, fit

CPU = torch.device("cpu")


class Cells(NamedTuple):
    """labels: sorted patterns; bits: of the images; training, validation: rows of the Cell table."""

    labels: list[str]
    bits: int
    training: Iterable[dict[str, Any]]
    validation: Iterable[dict[str, Any]]


class Work:
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
    def ready(self) -> list[Batch]:
        """The first epoch's batches, augmented and mixed, on the device."""
        return [
            Batch(*(tensor.to(self.device) for tensor in self.mixer(batch)))
            for batch in self.training.batches(self.keys[0])
        ]

    @cached_property
    def shown(self) -> list[Batch]:
        """The validation's batches, on the device."""
        keys = ordered_keys(range(len(self.validation)), self.recipe.eval.batch_size)
        return [Batch(*(tensor.to(self.device) for tensor in batch)) for batch in self.validation.batches(keys)]

    def network(self) -> torch.nn.Module:
        """A fresh one."""
        with seeded(0):
            return build_network(self.recipe.model, len(self.labels)).to(self.device)

    def fitted(
        self,
        folder: Path,
        keep: Callable[[Files], None],
        on_batch: Callable[[Progress], None],
        leave: Callable[[], bool],
    ) -> None:
        """The loop alone: what it hands to ``keep`` goes wherever that puts it."""
        fit(
            self.network(),
            self.recipe,
            self.training,
            self.validation,
            Description(self.recipe, self.labels, self.bits),
            folder,
            device=self.device,
            keep=keep,
            on_epoch=lambda epoch: None,
            on_batch=on_batch,
            leave=leave,
        )

    def step(self) -> Step:
        """Of a fresh network."""
        return Step(self.network(), self.recipe, self.device)

    def bare(self, step: Step) -> None:
        """What no training of the recipe can go below: its epochs' updates by this step, and its validations."""
        for epoch in range(1, len(self.keys) + 1):
            self.updated(step)
            if self.validates(epoch):
                self.validated(step.network)

    def validates(self, epoch: int) -> bool:
        """Whether the training looks at the validation cells after this epoch (from 1)."""
        return epoch % self.recipe.train.validate_every == 0 or epoch == len(self.keys)

    def updated(self, step: Step) -> None:
        """One epoch's updates by this step, on tensors that are there already."""
        step.network.train()
        for batch in self.ready:
            step(batch)

    def augmented(self, epoch: int) -> None:
        """An epoch's batches (from 1), drawn, augmented and mixed, and thrown away."""
        for batch in self.training.batches(self.keys[epoch - 1]):
            self.mixer(batch)

    @torch.inference_mode()
    def validated(self, network: torch.nn.Module) -> None:
        """One validation's forward passes, on tensors that are there already."""
        network.eval()
        for batch in self.shown:
            network(*batch.inputs(self.device))
