"""Exit task of a run: its record with its true status, however the run ended."""

from hep2flow.components import images
from kfp import dsl


@dsl.component(base_image=images.STEP, install_kfp_package=False)
def finish(
    run_id: str,
    job_id: str,
    store_endpoint: str,
    store_region: str,
    store_bucket: str,
    store_prefix: str,
    status: dsl.PipelineTaskFinalStatus,
) -> None:
    """Close ``run.json``."""
    from hep2flow.cluster.step import mendable, store_of
    from hep2flow.stages.begin import finish as stage

    store = {"endpoint": store_endpoint, "region": store_region, "bucket": store_bucket, "prefix": store_prefix}
    with mendable():
        stage(store_of(store), run_id, job_id, "succeeded" if status.state == "SUCCEEDED" else "failed")
