"""Mask as a component."""

from kfp import dsl

from hep2flow.components import images


@dsl.component(base_image=images.STEP, install_kfp_package=False)
def mask(
    store: dict[str, str],
    run_id: str,
    job_id: str,
    dataset: str,
    masked: dsl.Output[dsl.Dataset],
) -> str:
    """Mask the data set as the recipes' ``data.mask`` says; returns its URI."""
    from hep2flow.execution.kubeflow.pipeline_step import describe_artifact, step
    from hep2flow.stages.begin import recipe_of_run
    from hep2flow.stages.mask import mask as stage

    with step(store, run_id, job_id, "mask") as here:
        data = recipe_of_run(here.run).data
        result = stage(here.store, dataset, data.mask, data.mask_source)
        here.record.set_result(result)
        describe_artifact(masked, result)
    return result.uri
