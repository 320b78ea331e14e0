"""Measurements of a cell that join the network's pooled features before its head (the paper's last suggestion).

The recipe calls them ``model.aux_features``. They are made on the source image in its own pixels, once: resizing to the
network's square would lose a cell's size.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch

from hep2flow.cells import decode_png
from hep2flow.errors import UserError
from hep2flow.recipe import Feature


def measure_cell(image: torch.Tensor, mask: bytes | None, names: Sequence[Feature], cell_id: str) -> torch.Tensor:
    """Measure one cell.

    Args:
        image: uint8 (3, height, width).
        mask: PNG, not 0 inside the cell.
        names: Of the measurements: ``area`` of the mask, pixels; ``radius`` of the disc of that area, pixels; ``aspect``,
            minor over major axis of the ellipse with the mask's second moments, (0, 1]; ``intensity``, mean of the brightest
            channel inside the mask, [0, 1].
        cell_id: For the error.

    Returns:
        float32 (len(names),).

    Raises:
        UserError: The cell has no mask.
    """
    if not names:
        return torch.empty(0)
    if mask is None:
        raise UserError(
            f"model.aux_features: cell {cell_id} has no mask to measure; set data.mask=apply or crop, which derive masks "
            "where a source has none, or model.aux_features=[]"
        )
    # Imported here: it is slow, and few recipes measure.
    from skimage.measure import regionprops

    inside = decode_png(mask) > 0
    (region,) = regionprops(inside.astype(np.uint8))
    major, minor = float(region.axis_major_length), float(region.axis_minor_length)
    area = float(region.area)
    values = {
        "radius": math.sqrt(area / math.pi),
        "area": area,
        # A single pixel, or a line of them, has no minor axis.
        "aspect": minor / major if minor > 0 else 1.0 / max(area, 1.0),
        "intensity": float(image.amax(0).numpy()[inside].mean()) / 255.0,
    }
    return torch.tensor([values[name] for name in names], dtype=torch.float32)
