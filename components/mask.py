"""Mask as a component."""

from hep2flow.components import images
from kfp import dsl


@dsl.component(base_image=images.STEP, install_kfp_package=False)
def mask(
    store: dict,  # type: ignore[type-arg]
    run_id: str,
    dataset: str,
    data: dict,  # type: ignore[type-arg]
) -> str:
    """The data set as the recipes' ``data.mask`` wants it; returns its URI."""
    from hep2flow.cluster.step import step
    from hep2flow.recipe import Data
    from hep2flow.stages.mask import mask as stage

    choice = Data.model_validate(data)
    with step(store, run_id, "mask") as (opened, record):
        result = stage(opened, dataset, choice.mask, choice.mask_source)
        record.take(result)
    return result.uri
