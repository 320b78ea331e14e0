"""A batch of cells, and the mixing of its images and labels by mixup and cutmix (paper Table 2)."""

from typing import NamedTuple

import torch
from timm.data.mixup import Mixup, mixup_target

from hep2flow.recipe import Recipe


class Batch(NamedTuple):
    """Cells as a network takes them."""

    images: torch.Tensor  # float32 (b, 3, size, size), normalised
    measurements: torch.Tensor  # float32 (b, k), the recipe's ``model.aux_features`` in their own units; k may be 0
    labels: torch.Tensor  # int64 (b,); soft targets float32 (b, classes) once mixed

    def inputs(self, device: torch.device, layout: torch.memory_format = torch.contiguous_format) -> list[torch.Tensor]:
        """The network's arguments on its device: images, and measurements where there are any."""
        images = self.images.to(device, memory_format=layout, non_blocking=True)
        return [images, self.measurements.to(device, non_blocking=True)] if self.measurements.shape[1] else [images]


class BatchMixer:
    """Mixup and cutmix of a batch (paper Table 2), and label smoothing.

    timm's ``Mixup`` refuses odd batches, but 361 cells make 11 batches of 32 and one of 9. Its parts, used here, do not: a
    batch is mixed with its mirror image, and the middle cell of an odd batch with itself.
    """

    def __init__(self, recipe: Recipe, classes: int) -> None:
        batch = recipe.batch
        self.classes, self.smoothing = classes, batch.label_smoothing
        options = {"mixup_alpha": batch.mixup, "cutmix_alpha": batch.cutmix, "switch_prob": batch.switch_probability}
        options |= {"label_smoothing": batch.label_smoothing, "num_classes": classes}
        self.mixup = Mixup(**options) if batch.mixup or batch.cutmix else None

    def __call__(self, batch: Batch) -> Batch:
        """Mix images (in place), measurements and labels by the same ratio; the labels become soft targets."""
        images, measurements, labels = batch
        ratio = 1.0 if self.mixup is None else self.mixup._mix_batch(images)
        measurements = measurements * ratio + measurements.flip(0) * (1.0 - ratio)
        return Batch(images, measurements, mixup_target(labels, self.classes, ratio, self.smoothing))
