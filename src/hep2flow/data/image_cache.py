"""Cache of decoded cells, in memory or, where they are many, in a memory-mapped file."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from itertools import chain
from math import prod

import numpy as np
import torch

MAX_BYTES_IN_MEMORY = 2**30  # 7,000 cells of 224 x 224 pixels


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
