"""Mask: what lies outside the cell is blacked out or cut off (paper section 3.1.1, Figure 5)."""

from __future__ import annotations

from hep2flow.errors import UserError
from hep2flow.recipe import MaskMode, MaskSource
from hep2flow.stage_result import Progress, StageResult
from hep2flow.store.datasets import open_dataset, publish_dataset
from hep2flow.store.s3 import Store
from hep2flow.store.stage_cache import code_version, commit, lookup, stage_key


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
        from hep2flow.cells import CellWriter, scratch_folder
        from hep2flow.stages.cell_masks import DERIVED_NOTE, masked_cells

        derived = 0
        with scratch_folder() as scratch:
            with CellWriter(scratch / "dataset") as writer:
                for done, masked in enumerate(masked_cells(opened, mode), start=1):
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
