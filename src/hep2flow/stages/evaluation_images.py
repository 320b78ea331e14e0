"""Images of an evaluation: its most confident mistakes, and a training batch after augmentation."""

from contextlib import suppress

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from hep2flow.cells import encode_png
from hep2flow.data.batch import BatchMixer
from hep2flow.data.cell_set import CellSet, required_columns
from hep2flow.data.sampling import Key, ordered_keys, training_keys
from hep2flow.data.seeding import seeded
from hep2flow.evaluation.grad_cam import NoFeatureMapsError, heat_maps
from hep2flow.evaluation.metrics import most_confident_mistakes
from hep2flow.store.datasets import Dataset
from hep2flow.store.splits import Split
from hep2flow.training.checkpoint import Description

SHOWN = 16


def mistake_images(
    network: torch.nn.Module, cells: CellSet, predictions: pd.DataFrame, labels: list[str], device: torch.device
) -> pd.DataFrame:
    """The most confident mistakes, with images; ``predictions`` are of ``cells``, in the same order.

    Returns:
        cell_id, truth, predicted, confidence, and two PNG of the network's input size each: ``seen``, the network's input,
        and ``heat``, the Grad-CAM of the predicted pattern (8-bit grey, see :func:`heat_maps`; None for a network without
        feature maps).
    """
    wrong = most_confident_mistakes(predictions, labels)
    seen = [_png(cells.images[index]) for index in wrong.index]
    table: pd.DataFrame = wrong.assign(seen=seen, heat=None).reset_index(drop=True)
    if len(wrong):
        batch = next(cells.batches(ordered_keys(wrong.index.tolist(), len(wrong))))
        predicted = torch.tensor([labels.index(label) for label in wrong["predicted"]])
        with suppress(NoFeatureMapsError):
            heat = heat_maps(network, batch.inputs(device), predicted)
            table["heat"] = [encode_png(np.rint(255 * one.numpy()).astype(np.uint8), 6) for one in heat]
    return table


def augmented_batch(dataset: Dataset, split: Split, description: Description) -> pd.DataFrame:
    """The first SHOWN cells of a training's first batch, after augmentation and mixing, as a single worker loads them.

    Returns:
        cell_id, pattern, mixed_with (pattern of the cell that mixup or cutmix mixed in; None where the recipe does not
        mix), image (PNG of the network's input size).
    """
    recipe, labels = description.recipe, description.labels
    training = list(dataset.rows(set(split.ids("train")), ["cell_id", "pattern"]))
    patterns = torch.tensor([labels.index(row["pattern"]) for row in training])
    train, epoch = recipe.train, 1
    keys = training_keys(patterns, epoch, train.batch_size, train.seed, train.sampler)[0]
    shown = [training[index] for _, index, _ in keys]
    rows = dataset.rows({row["cell_id"] for row in shown}, required_columns(recipe))
    cells = CellSet(rows, labels, description.bits, recipe, training=True)
    # The same keys for a set of these cells only: the draws depend on epoch, seed, cell_id and repeat.
    local_keys: list[Key] = [
        (epoch, cells.ids.index(row["cell_id"]), repeat) for row, (_, _, repeat) in zip(shown, keys, strict=True)
    ]
    mixer, batch = BatchMixer(recipe, len(labels)), next(cells.batches([local_keys]))
    with seeded(train.seed, epoch, "mixing", 0):
        mixed, data = mixer(batch).images, recipe.data
    # The inverse of data.cell_set.normalize, rounded and clipped.
    images = mixed.mul(data.std).add_(data.mean).mul_(255.0).round_().clamp_(0, 255).to(torch.uint8)
    partners = [None] * len(shown) if mixer.mixup is None else [row["pattern"] for row in reversed(shown)]
    table: pd.DataFrame = pd.DataFrame(shown).assign(mixed_with=partners, image=list(map(_png, images))).head(SHOWN)
    return table


def _png(image: torch.Tensor) -> bytes:
    """PNG of uint8 (3, height, width), grey where its channels are equal."""
    pixels: npt.NDArray[np.uint8] = image.permute(1, 2, 0).numpy()
    grey = bool((pixels == pixels[..., :1]).all())
    return encode_png(pixels[..., 0] if grey else pixels, 6)
