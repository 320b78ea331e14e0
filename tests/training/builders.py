"""Cells, recipes and trainings that the tests of learning share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from hep2flow.cells import encode_png
from hep2flow.data.batch import Batch
from hep2flow.data.cell_set import CellSet
from hep2flow.network.model import build_network
from hep2flow.recipe import Recipe, load_recipe
from hep2flow.training.checkpoint import BEST, CheckpointFiles, Description
from hep2flow.training.trainer import Callbacks, Epoch, Progress, Trainer

CPU = torch.device("cpu")
PATTERNS = ["a", "b"]


def cell_set(recipe: Recipe, count: int = 12, *, training: bool = True) -> CellSet:
    """Noise in colour, each cell of another size and with a mask; patterns by turns."""
    random = np.random.default_rng(0)
    rows = []
    for index in range(count):
        mask = np.zeros((50 + index, 60), bool)
        mask[5 : 15 + index, 10 : 30 + 2 * index] = True
        rows.append(
            {
                "cell_id": f"c{index:03d}",
                "pattern": PATTERNS[index % 2],
                "image": encode_png(random.integers(0, 255, (50 + index, 60, 3), dtype=np.uint8)),
                "mask": encode_png(mask),
            }
        )
    return CellSet(rows, PATTERNS, 8, recipe, training=training)


def batch_of(size: int, side: int, features: int = 0) -> Batch:
    """Noise of six patterns by turns, the same each time."""
    random = torch.Generator().manual_seed(size)
    return Batch(
        torch.randn(size, 3, side, side, generator=random),
        torch.rand(size, features, generator=random),
        torch.arange(size) % 6,
    )


def unmixed(batch: Batch) -> Batch:
    """Images of its own: mixing happens in place."""
    return batch._replace(images=batch.images.clone())


def tiny(*overrides: str) -> Recipe:
    """A small network, three epochs of 5 + 5 + 2 cells."""
    return load_recipe(
        "convnext-b",
        "laptop",
        ["model.network=test_convnext", "train.batch_size=5", "optim.lr_scaling=none", "train.epochs=3", *overrides],
    )


def trained(
    recipe: Recipe,
    folder: Path,
    watch: Callable[[torch.nn.Module], None] | None = None,
    save: Callable[[CheckpointFiles], None] = lambda files: files.write(),
) -> tuple[list[Epoch], list[Progress], Path]:
    """Train on twelve cells, validate on seven; what was reported, and the checkpoint.

    watch: called with the network before the first epoch and after each; save: called with each checkpoint
    """
    torch.manual_seed(0)
    network = build_network(recipe.model, 2)
    epochs: list[Epoch] = []
    batches: list[Progress] = []
    folder.mkdir(parents=True, exist_ok=True)

    def on_epoch(epoch: Epoch) -> None:
        epochs.append(epoch)
        if watch is not None:
            watch(network)

    if watch is not None:
        watch(network)
    training, validation = cell_set(recipe), cell_set(recipe, 7, training=False)
    callbacks = Callbacks(save, on_epoch, batches.append)
    Trainer(network, Description(recipe, PATTERNS, 8), training, validation, folder, CPU, callbacks).run()
    return epochs, batches, folder / BEST
