"""A batch of cells, and the mixing of its images and labels by mixup and cutmix (paper Table 2)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from timm.data.mixup import Mixup, mixup_target

from hep2flow.recipe import Recipe


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


class BatchMixer:
    """Mixup and cutmix of a batch (paper Table 2), and the smoothing of its labels.

    timm's ``Mixup`` refuses odd batches; 361 cells are 11 batches of 32 and one of 9. Its own parts do not need an even
    number: a batch is mixed with its mirror image, and the middle one of an odd batch with itself.
    """

    def __init__(self, recipe: Recipe, classes: int) -> None:
        batch = recipe.batch
        self.classes = classes
        self.smoothing = batch.label_smoothing
        self.mixup = (
            Mixup(
                mixup_alpha=batch.mixup,
                cutmix_alpha=batch.cutmix,
                switch_prob=batch.switch_probability,
                label_smoothing=batch.label_smoothing,
                num_classes=classes,
            )
            if batch.mixup or batch.cutmix
            else None
        )

    def __call__(self, batch: Batch) -> Batch:
        """Images, mixed in place, features, and labels as soft targets, all three in the same shares."""
        images, features, labels = batch
        share = 1.0 if self.mixup is None else self.mixup._mix_batch(images)
        features = features * share + features.flip(0) * (1.0 - share)
        return Batch(images, features, mixup_target(labels, self.classes, share, self.smoothing))
