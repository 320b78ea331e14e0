"""Per-image augmentation of training cells (paper Table 1).

Table 1 gives no order; this is torchvision's and timm's: geometry, colour, normalisation, then holes filled with 0.
"""

from collections.abc import Callable

import torch
from timm.data.auto_augment import rand_augment_transform
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as tv

from hep2flow.recipe.schema import Cutout, RandAugment, Recipe


class Augmentation:
    """The recipe's ``augment`` section, drawn from the global random generators."""

    def __init__(self, recipe: Recipe) -> None:
        augment, data, size = recipe.augment, recipe.data, recipe.model.image_size
        steps: list[Callable[[torch.Tensor], torch.Tensor]] = []
        if (crop := augment.random_resized_crop) is not None:
            interpolation = v2.InterpolationMode(data.interpolation)
            steps.append(v2.RandomResizedCrop(size, crop.scale, crop.ratio, interpolation, antialias=True))
        if augment.horizontal_flip:
            steps.append(v2.RandomHorizontalFlip(augment.horizontal_flip))
        if augment.vertical_flip:
            steps.append(v2.RandomVerticalFlip(augment.vertical_flip))
        if augment.quarter_turns:
            steps.append(QuarterTurns())
        if (jitter := augment.color_jitter) is not None:
            steps.append(v2.ColorJitter(jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue))
        if augment.rand_augment is not None:
            steps.append(TimmRandAugment(augment.rand_augment, fill=round(255 * data.mean)))
        steps += [v2.ToDtype(torch.float32, scale=True), v2.Normalize([data.mean] * 3, [data.std] * 3)]
        if (erasing := augment.random_erasing) is not None:
            steps.append(v2.RandomErasing(erasing.probability, scale=erasing.scale, ratio=erasing.ratio))
        if augment.cutout is not None:
            steps.append(SquareHole(augment.cutout))
        self.transform = v2.Compose(steps)

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        """uint8 (3, height, width) -> normalised float32 (3, size, size)."""
        result: torch.Tensor = self.transform(image)
        return result


class QuarterTurns:
    """Rotate by 0, 90, 180 or 270 degrees, each with probability 1/4: a cell has no upright."""

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        """Rotate (..., height, width)."""
        return torch.rot90(image, int(torch.randint(4, ())), (-2, -1))


class TimmRandAugment:
    """timm's RandAugment, which works on PIL images, for uint8 (3, height, width)."""

    def __init__(self, section: RandAugment, fill: int) -> None:
        settings = f"rand-m{section.magnitude:g}-n{section.operations}"
        self.transform = rand_augment_transform(settings, {"img_mean": (fill, fill, fill)})

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        """uint8 (3, height, width) -> the same."""
        augmented: torch.Tensor = tv.pil_to_tensor(self.transform(tv.to_pil_image(image)))
        return augmented


class SquareHole:
    """Cutout (DeVries and Taylor 2017): a square of zeros, its centre anywhere in the image, clipped at the border."""

    def __init__(self, section: Cutout) -> None:
        self.side = section.side

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        """float32 (3, height, width) -> the same."""
        height, width = image.shape[-2:]
        half = round(self.side * min(height, width)) // 2
        y, x = int(torch.randint(height, ())), int(torch.randint(width, ()))
        erased = image.clone()
        erased[..., max(0, y - half) : y + half, max(0, x - half) : x + half] = 0
        return erased
