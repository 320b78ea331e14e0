"""Train as a component."""

from hep2flow.components import images
from kfp import dsl


@dsl.component(base_image=images.RAY, install_kfp_package=False)
def train(
    store: dict,  # type: ignore[type-arg]
    run_id: str,
    job_id: str,
    models: str,
    dataset: str,
    split: str,
    engine: str,
    cluster: dict,  # type: ignore[type-arg]
    store_secret: str,
    trained: dsl.Output[dsl.Model],
    sweep: str = "",
) -> str:
    """Train a model of the run through Ray Train, here or as a RayJob; returns the training's URI.

    models: its name; of several, with spaces between, one is trained after the other, and their URIs are returned so
    sweep: that the recipe comes from; empty where it is trained as it is
    """
    from hep2flow.execution.dispatch import perform_on
    from hep2flow.execution.job_spec import Specification
    from hep2flow.execution.kubeflow.pipeline_step import describe, step
    from hep2flow.execution.kubernetes.cluster_options import with_secret
    from hep2flow.stages.begin import recipe_of_model
    from hep2flow.stages.masked_variant import in_form

    results = []
    for model in models.split():
        with step(store, run_id, job_id, "train", model) as here:
            recipe = recipe_of_model(here.store, here.run, model, sweep)
            form = in_form(here.store, dataset, recipe.data)
            asked = Specification(run_id=here.run.run_id, recipe=recipe, dataset=form, split=split)
            results.append(perform_on(engine, with_secret(cluster, store_secret), here.store, asked, here.record))
            here.record.take(results[-1])
    describe(trained, *results)
    return " ".join(result.uri for result in results)
