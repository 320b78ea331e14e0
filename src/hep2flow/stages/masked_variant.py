"""Forms: one data set masked in several ways, for recipes that differ in ``data.mask``."""

from __future__ import annotations

from hep2flow.recipe import Data
from hep2flow.store.datasets import open_dataset
from hep2flow.store.s3 import Store


def in_form(store: Store, dataset: str, data: Data) -> str:
    """URI of the data set as ``data.mask`` wants it: itself, or its unmasked parent masked so; a split fits all forms.

    dataset: URI of a data set in any form
    Raises UserError where masks are wanted and cannot be had.
    """
    facts = open_dataset(store, dataset).manifest["facts"]
    if facts["mask"]["mode"] == data.mask:
        return dataset
    # Here, because a step that masks nothing has no image library.
    from hep2flow.stages.mask import mask

    return mask(store, facts["parent"] or dataset, data.mask, data.mask_source).uri
