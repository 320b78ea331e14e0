"""Train as a component."""

from hep2flow.components import images
from kfp import dsl


@dsl.component(base_image=images.RAY, install_kfp_package=False)
def train(
    store: dict,  # type: ignore[type-arg]
    run_id: str,
    recipe: str,
    dataset: str,
    split: str,
    engine: str,
    cluster: dict,  # type: ignore[type-arg]
) -> str:
    """Train one recipe through Ray Train, here or as a RayJob; returns the training's URI."""
    from hep2flow.cluster.engine import perform_on
    from hep2flow.cluster.specification import Specification
    from hep2flow.cluster.step import step
    from hep2flow.recipe import read_recipe
    from hep2flow.stages.forms import in_form

    read = read_recipe(recipe)
    with step(store, run_id, "train", read.name) as (opened, record):
        form = in_form(opened, dataset, read.data)
        asked = Specification(run_id=run_id, recipe=read, dataset=form, split=split)
        result = perform_on(engine, cluster, opened, asked, record)
        record.take(result)
    return result.uri
