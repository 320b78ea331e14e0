"""One data set masked in several ways, for recipes that differ in ``data.mask``."""

from hep2flow.recipe import Data
from hep2flow.stages.mask import mask
from hep2flow.store.datasets import open_dataset
from hep2flow.store.s3 import Store


def masked_variant(store: Store, dataset: str, data: Data) -> str:
    """URI of the variant of a data set (given any variant) that is masked as ``data`` requires; a split fits all variants.

    Raises:
        UserError: Masks are required and unavailable.
    """
    facts = open_dataset(store, dataset).manifest["facts"]
    if facts["mask"]["mode"] == data.mask:
        return dataset
    return mask(store, facts["parent"] or dataset, data.mask, data.mask_source).uri
