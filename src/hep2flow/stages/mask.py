"""Mask: black out or crop what lies outside the cell (paper section 3.1.1, Figure 5)."""

from hep2flow.errors import UserError
from hep2flow.recipe.schema import MaskMode, MaskSource
from hep2flow.stage_result import Progress, StageResult
from hep2flow.store.datasets import open_dataset, publish_dataset
from hep2flow.store.s3 import Store
from hep2flow.store.stage_cache import CachedStage, stage_key


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
        from hep2flow.cells import CellWriter, temporary_folder
        from hep2flow.stages.cell_masks import DERIVED_NOTE, mask_cells

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
