"""A batch of cells, as it goes from the loader through the mixer into the network."""

from __future__ import annotations

from typing import NamedTuple

import torch


class Batch(NamedTuple):
    """Cells as a network takes them.

    images:   float32 (b, 3, size, size), normalised
    features: float32 (b, k), the recipe's ``aux_features`` as measured, k may be 0
    labels:   int64 (b,); soft targets float32 (b, classes) once mixed
    """

    images: torch.Tensor
    features: torch.Tensor
    labels: torch.Tensor

    def inputs(self, device: torch.device, layout: torch.memory_format = torch.contiguous_format) -> list[torch.Tensor]:
        """What the network is called with, on its device: images, and features where there are any."""
        images = self.images.to(device, memory_format=layout, non_blocking=True)
        return [images, self.features.to(device, non_blocking=True)] if self.features.shape[1] else [images]
