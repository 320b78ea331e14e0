"""Split as a component."""

from kfp import dsl

from hep2flow.components import images


@dsl.component(base_image=images.STEP, install_kfp_package=False)
def split(
    store: dict[str, str],
    run_id: str,
    job_id: str,
    dataset: str,
    given_split: str,
) -> str:
    """Divide the data set as the recipes' ``data.split`` says; returns the split's URI."""
    from hep2flow.execution.kubeflow.pipeline_step import step
    from hep2flow.stages.begin import recipe_of_run
    from hep2flow.stages.split import split as stage

    with step(store, run_id, job_id, "split") as here:
        result = stage(here.store, dataset, recipe_of_run(here.run).data.split, given_split)
        here.record.set_result(result)
    return result.uri
