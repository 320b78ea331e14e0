"""Split as a component."""

from hep2flow.components import images
from kfp import dsl


@dsl.component(base_image=images.STEP, install_kfp_package=False)
def split(
    store: dict,  # type: ignore[type-arg]
    run_id: str,
    dataset: str,
    given_split: str,
    data: dict,  # type: ignore[type-arg]
) -> str:
    """Divide the data set as the recipes' ``data.split`` says; returns the split's URI."""
    from hep2flow.cluster.step import step
    from hep2flow.recipe import Data
    from hep2flow.stages.split import split as stage

    with step(store, run_id, "split") as (opened, record):
        result = stage(opened, dataset, Data.model_validate(data).split, given_split)
        record.take(result)
    return result.uri
