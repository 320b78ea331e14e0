"""Train as a component."""

from typing import Any

from kfp import dsl

from hep2flow.components import images


@dsl.component(base_image=images.RAY, install_kfp_package=False)
def train(
    store: dict[str, str],
    run_id: str,
    job_id: str,
    models: str,
    dataset: str,
    split: str,
    engine: str,
    cluster: dict[str, Any],
    store_secret: str,
    trained: dsl.Output[dsl.Model],
    sweep: str = "",
) -> str:
    """Train models of the run through Ray Train, in this step or as RayJobs.

    ``models`` are names with spaces between, trained one after the other; ``sweep`` is the URI of the sweep that chose
    their recipe, empty for recipes trained as they are.

    Returns:
        URIs of the trainings, with spaces between.
    """
    from hep2flow.execution.dispatch import run_on_engine
    from hep2flow.execution.job_spec import JobSpec
    from hep2flow.execution.kubeflow.pipeline_step import describe_artifact, step
    from hep2flow.execution.kubernetes.cluster_options import with_secret
    from hep2flow.stages.begin import recipe_of_model
    from hep2flow.stages.masked_variant import masked_variant

    results = []
    for model in models.split():
        with step(store, run_id, job_id, "train", model) as here:
            recipe = recipe_of_model(here.store, here.run, model, sweep)
            form = masked_variant(here.store, dataset, recipe.data)
            spec = JobSpec(run_id=here.run.run_id, recipe=recipe, dataset=form, split=split)
            results.append(run_on_engine(engine, with_secret(cluster, store_secret), here.store, spec, here.record))
            here.record.set_result(results[-1])
    describe_artifact(trained, *results)
    return " ".join(result.uri for result in results)
