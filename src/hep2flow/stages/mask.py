"""Mask: black out or crop what lies outside the cell (paper section 3.1.1, Figure 5), by given or derived masks."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from hep2flow.cells import SCHEMA, Cell, CellWriter, encode_png, pixel_sha256, temporary_folder
from hep2flow.distributed.ray_cluster import ray_data_available
from hep2flow.errors import UserError
from hep2flow.parallel import parallel_map
from hep2flow.recipe.schema import MaskMode, MaskSource
from hep2flow.stage_result import Progress, StageResult
from hep2flow.store.datasets import Dataset, open_dataset, publish_dataset
from hep2flow.store.s3 import Store
from hep2flow.store.stage_cache import CachedStage, stage_key

DERIVED_NOTE = "{} masks derived from the images (Otsu, largest component): the source has none"

Mask = npt.NDArray[np.bool_]
MaskingMode = Literal["apply", "crop"]


class MaskedCell(NamedTuple):
    """A masked cell, what ``CellWriter.add`` takes beside it, and whether its mask was derived from the image."""

    cell: Cell
    max_value: int
    mask_sha256: str
    derived: bool


def mask(
    store: Store, dataset: str, mode: MaskMode = "apply", source: MaskSource = "auto", progress: Progress | None = None
) -> StageResult:
    """Publish the masked data set; its manifest names its parent.

    ``mode`` apply sets pixels outside the mask to 0; crop cuts the image to the mask's bounding box, with background; none
    leaves the data set as it is. ``source`` auto takes the data set's own masks or, where it has none at all, masks derived
    from the images, and says so; given refuses a data set without masks.

    Returns:
        The data set; the summary's ``derived`` counts derived masks.

    Raises:
        UserError: Masks are required and unavailable.
    """
    opened = open_dataset(store, dataset)
    facts, count = opened.manifest["facts"], opened.manifest["count"]
    inputs = {"dataset": store.key(opened.uri), "mode": mode, "source": source}  # a key, equal in every bucket
    cache = CachedStage(store, "mask", stage_key("mask", inputs))
    if (cached := cache.lookup()) is not None:
        return cached
    if mode == "none":
        uri, derived = dataset, 0
    else:
        if source == "given" and not facts["mask"]["given"]:
            raise UserError(
                f"data.mask_source: {opened.manifest['name']} has no masks; "
                "set data.mask_source=auto to derive them, or data.mask=none"
            )
        derived = 0
        with temporary_folder() as scratch:
            with CellWriter(scratch / "dataset") as writer:
                for done, masked in enumerate(mask_cells(opened, mode), start=1):
                    writer.add(masked.cell, masked.max_value, masked.mask_sha256)
                    derived += masked.derived
                    if progress is not None:
                        progress(done, count)
            masked_facts = {
                **facts,
                "notes": [*facts["notes"], *([DERIVED_NOTE.format(derived)] if derived else [])],
                "parent": dataset,
                "mask": {"mode": mode, "given": count - derived, "derived": derived},
            }
            # The bit depth is the camera's, however dark the masked images are.
            uri = publish_dataset(store, opened.manifest["name"], writer, masked_facts, bits=opened.manifest["bits"])
    return cache.commit(uri, "folder", {"mode": mode, "derived": derived, "cells": count})


def mask_cells(opened: Dataset, mode: MaskingMode) -> Iterator[MaskedCell]:
    """Mask all cells, in their order, on all cores of this machine, or a large set on all machines of the Ray cluster."""
    if len(opened.manifest["parts"]) > 1 and ray_data_available():
        from hep2flow.distributed.ray_tasks import map_cells

        return map(_from_row, map_cells(partial(_to_row, mode=mode), opened))
    cells = (Cell(**row) for row in opened.rows())
    return parallel_map(partial(mask_cell, mode=mode), cells, opened.manifest["count"], lambda cell: len(cell.image))


def mask_cell(cell: Cell, mode: MaskingMode) -> MaskedCell:
    """Set pixels outside the cell's mask to 0, or crop to the mask's bounding box; derive a mask where it has none."""
    pixels = cell.pixels()
    given = cell.mask_pixels()
    inside = derive_mask(pixels) if given is None else given
    result: npt.NDArray[Any]
    if mode == "apply":
        result = np.where(inside if pixels.ndim == 2 else inside[..., None], pixels, 0).astype(pixels.dtype)
    else:
        rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
        box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        result, inside = pixels[box], inside[box]
    (height, width), image, mask = result.shape[:2], encode_png(result), encode_png(inside)
    masked = replace(cell, width=width, height=height, image=image, mask=mask, sha256=pixel_sha256(result))
    return MaskedCell(masked, int(result.max()), pixel_sha256(inside), given is None)


def derive_mask(pixels: npt.NDArray[Any]) -> Mask:
    """Derive the mask of the one cell in an image: (height, width), True inside; never empty.

    Otsu's threshold (skimage ``threshold_otsu``) on the smoothed square root of the brightest channel, then the largest
    component, its convex hull, and a rim of 4 % of the side.
    """
    # Slow to import: not for given masks.
    from scipy.ndimage import binary_dilation, binary_fill_holes, gaussian_filter
    from skimage.filters import threshold_otsu
    from skimage.measure import label
    from skimage.morphology import convex_hull_image, disk

    grey = pixels if pixels.ndim == 2 else pixels.max(axis=2)
    # The square root stabilises the variance of photon noise: a dim nucleus with bright dots is not lost.
    smooth = np.sqrt(gaussian_filter(grey.astype(np.float32), sigma=2.0))
    if np.ptp(smooth) < 512 * np.spacing(smooth.max()):  # flat: too few float32 values for Otsu's histogram
        return np.ones(grey.shape, dtype=np.bool_)
    components = label(smooth > threshold_otsu(smooth))
    largest = components == 1 + np.argmax(np.bincount(components.ravel())[1:])
    # Nuclei are convex, and a rim around the hull keeps the nuclear membrane.
    hull = convex_hull_image(largest) if min(np.ptp(np.argwhere(largest), axis=0)) > 0 else largest
    rim = max(1, round(0.04 * max(grey.shape)))
    return np.asarray(binary_dilation(binary_fill_holes(hull), structure=disk(rim)))


def _to_row(cell: Cell, mode: MaskingMode) -> dict[str, Any]:
    masked = mask_cell(cell, mode)._asdict()
    return {**vars(masked.pop("cell")), **masked}


def _from_row(row: dict[str, Any]) -> MaskedCell:
    cell = Cell(**{name: row[name] for name in SCHEMA.names})
    return MaskedCell(cell, row["max_value"], row["mask_sha256"], row["derived"])
