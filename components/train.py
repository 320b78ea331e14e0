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
) -> str:
    """Train one recipe through Ray Train; returns the training's URI."""
    from hep2flow.cluster.step import step
    from hep2flow.recipe import read_recipe
    from hep2flow.stages.forms import in_form
    from hep2flow.stages.train import train as stage

    read = read_recipe(recipe)
    with step(store, run_id, "train", read.name) as (opened, record):
        form = in_form(opened, dataset, read.data)
        result = stage(opened, read, form, split, announce=record.announce)
        record.take(result)
    return result.uri
