"""Mask: what lies outside the cell is blacked out or cut off (paper section 3.1.1, Figure 5)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from hep2flow.cells import SCHEMA, Cell, CellWriter, encode_png, pixel_sha256, scratch_folder
from hep2flow.cores import on_all_cores
from hep2flow.distributed.cluster import on_a_cluster
from hep2flow.errors import UserError
from hep2flow.recipe import MaskMode, MaskSource
from hep2flow.results import Progress, StageResult
from hep2flow.store.cache import code_version, commit, lookup, stage_key
from hep2flow.store.datasets import Dataset, open_dataset, publish_dataset
from hep2flow.store.s3 import Store

Mask = npt.NDArray[np.bool_]
Cutting = Literal["apply", "crop"]


def mask(
    store: Store, dataset: str, mode: MaskMode = "apply", source: MaskSource = "auto", progress: Progress | None = None
) -> StageResult:
    """Publish the masked data set; its manifest names its parent.

    mode:   apply: pixels outside the mask become 0; crop: the image is cut to the mask's box, its background kept;
            none: the data set stays as it is
    source: auto: the data set's own masks, or, where it has none at all, masks derived from the images, and says so;
            given: a data set without masks is refused
    The summary's ``derived`` counts derived masks. Raises UserError where masks are wanted and cannot be had.
    """
    opened = open_dataset(store, dataset)
    facts, count = opened.manifest["facts"], opened.manifest["count"]
    inputs = {"dataset": store.key(opened.ref.uri), "mode": mode, "source": source}  # the same in every bucket
    key = stage_key("mask", inputs, code_version("mask"))
    entry = lookup(store, "mask", key)
    if entry is not None:
        return StageResult(stage="mask", key=key, uri=entry["output"]["uri"], cached=True, summary=entry["summary"])
    if mode == "none":
        uri, derived = dataset, 0
    else:
        if source == "given" and not facts["mask"]["given"]:
            raise UserError(
                f"data.mask_source: {opened.manifest['name']} has no masks; "
                "set data.mask_source=auto to derive them, or data.mask=none"
            )
        derived = 0
        with scratch_folder() as scratch:
            with CellWriter(scratch / "dataset") as writer:
                for done, masked in enumerate(_masked(opened, mode), start=1):
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
            # The camera's depth stays its depth, however dark the masked images are.
            uri = publish_dataset(store, opened.manifest["name"], writer, masked_facts, bits=opened.manifest["bits"])
    summary = {"mode": mode, "derived": derived, "cells": count}
    commit(store, "mask", key, {"output": {"uri": uri, "kind": "folder"}, "summary": summary})
    return StageResult(stage="mask", key=key, uri=uri, summary=summary)


def _masked(opened: Dataset, mode: Cutting) -> Iterator[Masked]:
    """All cells in their order, by all cores of this machine, or a large set by all machines of the cluster there is."""
    if len(opened.manifest["parts"]) > 1 and on_a_cluster():
        from hep2flow.distributed.parts import over_machines

        return map(_of_row, over_machines(partial(_as_row, mode=mode), opened))
    cells = (Cell(**row) for row in opened.rows())
    return on_all_cores(partial(masked_cell, mode=mode), cells, opened.manifest["count"], lambda cell: len(cell.image))


DERIVED_NOTE = "{} masks derived from the images (Otsu, largest component): the source has none"


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
