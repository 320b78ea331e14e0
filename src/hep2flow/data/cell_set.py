"""Cells ready for a network: decoded and resized once, augmented at each use, loaded in batches."""

import tempfile
from collections.abc import Generator, Iterable, Iterator, Mapping
from itertools import chain
from math import prod
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from hep2flow.cells import decode_png
from hep2flow.data.augment import Augmentation
from hep2flow.data.batch import Batch
from hep2flow.data.cell_measurements import measure_cell
from hep2flow.data.sampling import Key
from hep2flow.data.seeding import seeded
from hep2flow.data.shared_memory import FOLDER, PREFETCHED, check_shared_memory
from hep2flow.errors import UserError
from hep2flow.recipe import Data, Recipe

BATCH_SECONDS = 600  # without a batch from the loader workers
MAX_BYTES_IN_MEMORY = 2**30  # 7,000 cells of 224 x 224 pixels


def to_rgb8(png: bytes, bits: int) -> torch.Tensor:
    """Decoded cell as uint8 (3, height, width); grey becomes three equal channels, ``bits`` deep pixels scale to 255."""
    pixels = decode_png(png)
    if pixels.dtype == np.uint16:
        pixels = np.clip(np.rint(pixels * (255.0 / (2**bits - 1))), 0, 255).astype(np.uint8)
    image = torch.from_numpy(pixels)
    return (image.expand(3, -1, -1) if image.ndim == 2 else image.permute(2, 0, 1)).contiguous()


def resize(image: torch.Tensor, size: int, data: Data) -> torch.Tensor:
    """uint8 (3, height, width) -> uint8 (3, size, size) without keeping the aspect ratio, as the paper does."""
    interpolation = InterpolationMode(data.interpolation)
    resized: torch.Tensor = tv.resize(image, [size, size], interpolation=interpolation, antialias=True)
    return resized


def normalize(images: torch.Tensor, data: Data) -> torch.Tensor:
    """uint8 pixels -> float32, (x / 255 - mean) / std."""
    return images.to(torch.float32).div_(255.0).sub_(data.mean).div_(data.std)


class CellSet(Dataset[tuple[torch.Tensor, torch.Tensor, int]]):
    """Cells of one subset with their labels; keys are those of :data:`hep2flow.data.sampling.Key`.

    Args:
        rows: Of the Cell table, with the :func:`required_columns`.
        labels: Sorted pattern names.
        bits: Significant bits of the images.
        training: Whether the cells are augmented.

    Attributes:
        ids: cell_id of every cell.
        images: uint8 (3, height, width) each, resized unless the recipe crops at random from the full cell.
        measurements: float32 (n, k), see :mod:`hep2flow.data.cell_measurements`.
        labels: int64 (n,), index into the pattern names.
    """

    def __init__(
        self, rows: Iterable[Mapping[str, Any]], labels: list[str], bits: int, recipe: Recipe, *, training: bool
    ) -> None:
        self.recipe = recipe
        self.augmentation = Augmentation(recipe) if training else None
        self.ids: list[str] = []
        measurements: list[torch.Tensor] = []
        targets: list[int] = []
        full_size = training and recipe.augment.random_resized_crop is not None

        def decoded() -> Iterator[torch.Tensor]:
            for row in rows:
                image = to_rgb8(row["image"], bits)
                if names := recipe.model.aux_features:
                    measurements.append(measure_cell(image, row["mask"], names, row["cell_id"]))
                self.ids.append(row["cell_id"])
                targets.append(labels.index(row["pattern"]))
                yield image if full_size else resize(image, recipe.model.image_size, recipe.data)

        self.images = cache_images(decoded())
        self.measurements = torch.stack(measurements) if measurements else torch.empty(len(self.ids), 0)
        self.labels = torch.tensor(targets, dtype=torch.int64)

    def to(self, device: torch.device) -> None:
        """Move the pixels to a GPU, which then augments and normalises them by the same random draws.

        They stay on the CPU where they exceed MAX_BYTES_IN_MEMORY, where loader workers augment them, and where RandAugment
        does, because its operations are Pillow's.
        """
        on_cpu = self.recipe.train.loader_workers > 0 or self.recipe.augment.rand_augment is not None
        large = sum(image.numel() for image in self.images) > MAX_BYTES_IN_MEMORY
        if device.type != "cpu" and not large and not (on_cpu and self.augmentation is not None):
            self.images = [image.to(device) for image in self.images]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, key: Key) -> tuple[torch.Tensor, torch.Tensor, int]:
        images, measurements, labels = self.__getitems__([key])
        return images[0], measurements[0], int(labels[0])

    def __getitems__(self, keys: list[Key]) -> Batch:
        """A batch at once, which torch's DataLoader prefers to single items."""
        indices = [index for _, index, _ in keys]
        images = torch.stack([self._augmented(*key) if self.augmentation else self.images[key[1]] for key in keys])
        if self.augmentation is None:
            images = normalize(images, self.recipe.data)
        return Batch(images, self.measurements[indices], self.labels[indices])

    def _augmented(self, epoch: int, index: int, repeat: int) -> torch.Tensor:
        assert self.augmentation is not None
        with seeded(self.recipe.train.seed, epoch, self.ids[index], repeat):
            return self.augmentation(self.images[index])

    def batches(self, keys: Iterable[list[Key]], workers: int = 0) -> Generator[Batch, None, None]:
        """Batches in the order of ``keys``, which is read as far as batches are prefetched: two for each loader worker.

        Raises:
            UserError: The loader workers' batches do not fit into shared memory, or none came for BATCH_SECONDS.
        """
        if workers:
            train = self.recipe.train
            pixels = 3 * self.recipe.model.image_size**2
            check_shared_memory(train.batch_size * pixels * torch.float32.itemsize, workers)
        loader = DataLoader(
            self,
            batch_sampler=keys,
            num_workers=workers,
            collate_fn=_identity,  # a lambda could not be pickled for the loader workers
            pin_memory=torch.cuda.is_available() and all(image.device.type == "cpu" for image in self.images[:1]),
            prefetch_factor=PREFETCHED if workers else None,
            timeout=BATCH_SECONDS if workers else 0,
        )
        try:
            yield from loader
        except RuntimeError as error:
            if "timed out" not in str(error):
                raise
            raise UserError(
                f"train.loader_workers: no batch from {workers} loader workers for {BATCH_SECONDS} s; a worker that is "
                f"given too little memory or shared memory ({FOLDER}) loses its batch in silence: lower "
                "train.loader_workers (0 loads in the training itself), and the training resumes from its last state"
            ) from error


def cache_images(images: Iterable[torch.Tensor]) -> list[torch.Tensor]:
    """Cache uint8 images of any shapes; beyond MAX_BYTES_IN_MEMORY they are views of a memory-mapped file.

    The file is in the temporary folder, unnamed, and is gone with the process. All loader workers share its pages, which the
    system may evict.

    Raises:
        OSError: The disk is too full for the file.
    """
    remaining, cached, size = iter(images), [], 0
    for image in remaining:
        cached.append(image)
        size += image.numel()
        if size > MAX_BYTES_IN_MEMORY:
            return _memory_mapped(chain(cached, remaining))
    return cached


def _memory_mapped(images: Iterable[torch.Tensor]) -> list[torch.Tensor]:
    shapes = []
    with tempfile.TemporaryFile() as file:
        for image in images:
            file.write(image.contiguous().numpy().data)
            shapes.append(image.shape)
        file.flush()
        # Copy-on-write, because torch has no read-only tensors.
        pixels = torch.from_numpy(np.memmap(file, np.uint8, mode="c"))
    parts = torch.split_with_sizes(pixels, [prod(shape) for shape in shapes])
    return [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]


def _identity(batch: Any) -> Any:
    return batch


def required_columns(recipe: Recipe) -> list[str]:
    """The Cell table's columns that a CellSet reads."""
    return ["cell_id", "pattern", "image", *(["mask"] if recipe.model.aux_features else [])]
