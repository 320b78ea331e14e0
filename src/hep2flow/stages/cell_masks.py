"""The cells of a data set with what lies outside of them blacked out or cut off, and masks for those that have none.

Apart from its stage, because numpy is slow to import, and most runs find their data set masked already.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from hep2flow.cells import SCHEMA, Cell, encode_png, pixel_sha256
from hep2flow.distributed.ray_cluster import on_a_cluster
from hep2flow.parallel import on_all_cores
from hep2flow.store.datasets import Dataset

DERIVED_NOTE = "{} masks derived from the images (Otsu, largest component): the source has none"

Mask = npt.NDArray[np.bool_]
Cutting = Literal["apply", "crop"]


def masked_cells(opened: Dataset, mode: Cutting) -> Iterator[Masked]:
    """All cells in their order, by all cores of this machine, or a large set by all machines of the cluster there is."""
    if len(opened.manifest["parts"]) > 1 and on_a_cluster():
        from hep2flow.distributed.ray_tasks import over_machines

        return map(_of_row, over_machines(partial(_as_row, mode=mode), opened))
    cells = (Cell(**row) for row in opened.rows())
    return on_all_cores(partial(masked_cell, mode=mode), cells, opened.manifest["count"], lambda cell: len(cell.image))


class Masked(NamedTuple):
    """A cell that has been masked, ready for ``CellWriter.add(cell, max_value, mask_sha256)``.

    cell:    with its mask
    derived: the mask had to be derived from the image
    """

    cell: Cell
    max_value: int
    mask_sha256: str
    derived: bool


def masked_cell(cell: Cell, mode: Cutting) -> Masked:
    """The cell, what lies outside its mask blacked out or cut off."""
    pixels = cell.pixels()
    inside = cell.mask_pixels()
    derived = inside is None
    if inside is None:
        inside = derive_mask(pixels)
    result: npt.NDArray[Any]
    if mode == "apply":
        result = np.where(inside if pixels.ndim == 2 else inside[..., None], pixels, 0).astype(pixels.dtype)
    else:
        rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
        box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        result, inside = pixels[box], inside[box]
    masked = Cell(
        **{
            **vars(cell),
            "width": result.shape[1],
            "height": result.shape[0],
            "image": encode_png(result),
            "mask": encode_png(inside),
            "sha256": pixel_sha256(result),
        }
    )
    return Masked(masked, int(result.max()), pixel_sha256(inside), derived)


def _as_row(cell: Cell, mode: Cutting) -> dict[str, Any]:
    masked = masked_cell(cell, mode)
    told = {"max_value": masked.max_value, "mask_sha256": masked.mask_sha256, "derived": masked.derived}
    return {**vars(masked.cell), **told}


def _of_row(row: dict[str, Any]) -> Masked:
    cell = Cell(**{name: row[name] for name in SCHEMA.names})
    return Masked(cell, row["max_value"], row["mask_sha256"], row["derived"])


def derive_mask(pixels: npt.NDArray[Any]) -> Mask:
    """Mask of the one cell in an image, (height, width), True inside; never empty.

    Otsu's threshold (skimage ``threshold_otsu``) on the smoothed square root of the brightest channel, then the largest
    component, its convex hull, and a rim of 4 % of the side. The square root evens out photon noise, so that a dim
    nucleus with bright dots is not lost; nuclei are convex; the rim keeps the nuclear membrane.
    """
    # Slow to import: not for masks that are there already.
    from scipy.ndimage import binary_dilation, binary_fill_holes, gaussian_filter
    from skimage.filters import threshold_otsu
    from skimage.measure import label
    from skimage.morphology import convex_hull_image, disk

    grey = pixels if pixels.ndim == 2 else pixels.max(axis=2)
    smooth = np.sqrt(gaussian_filter(grey.astype(np.float32), sigma=2.0))
    if np.ptp(smooth) < 512 * np.spacing(smooth.max()):  # flat: too few float32 values for Otsu's histogram
        return np.ones(grey.shape, dtype=np.bool_)
    components = label(smooth > threshold_otsu(smooth))
    largest = components == 1 + np.argmax(np.bincount(components.ravel())[1:])
    hull = convex_hull_image(largest) if min(np.ptp(np.argwhere(largest), axis=0)) > 0 else largest
    rim = max(1, round(0.04 * max(grey.shape)))
    result: Mask = binary_dilation(binary_fill_holes(hull), structure=disk(rim))
    return result
