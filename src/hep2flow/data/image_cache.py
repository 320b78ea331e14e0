"""Decoded cells, in memory or, where they are many, in a file that is mapped into it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from itertools import chain
from math import prod

import numpy as np
import torch

IN_MEMORY = 2**30
"""Bytes that are held in memory: 7,000 cells of 224 x 224 pixels."""


def kept(images: Iterable[torch.Tensor]) -> list[torch.Tensor]:
    """The same uint8 images, each of its own shape; where they are more than IN_MEMORY, views of a file.

    The file, in the temporary folder, has no name and goes with the process. All loader workers share its pages, and the
    system may drop them from memory when it wants to. Raises OSError where there is no room for it.
    """
    remaining, held, size = iter(images), [], 0
    for image in remaining:
        held.append(image)
        size += image.numel()
        if size > IN_MEMORY:
            return _mapped(chain(held, remaining))
    return held


def _mapped(images: Iterable[torch.Tensor]) -> list[torch.Tensor]:
    shapes = []
    with tempfile.TemporaryFile() as file:
        for image in images:
            file.write(image.contiguous().numpy().data)
            shapes.append(image.shape)
        file.flush()
        # Copied where somebody writes: torch knows no tensor that only can be read.
        every = torch.from_numpy(np.memmap(file, np.uint8, mode="c"))
    parts = torch.split_with_sizes(every, [prod(shape) for shape in shapes])
    return [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]
