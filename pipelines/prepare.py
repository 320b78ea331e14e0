"""The first half of every pipeline here: a run's record, its data set, masked, and its division."""

from typing import Any

from hep2flow.components.begin import begin
from hep2flow.components.finish import finish
from hep2flow.components.ingest import ingest
from hep2flow.components.mask import mask
from hep2flow.components.split import split
from hep2flow.pipelines.placement import place
from kfp import dsl


def closing(run_id: Any, store: dict[str, Any], nodes: dict[str, Any]) -> dsl.PipelineTask:
    """The exit task: closes the run's record, however the run ends."""
    task = finish(run_id=run_id, job_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER, **store)
    task.set_caching_options(False)
    return place(task, nodes, cpu="100m", memory="512Mi", hours=1)


def prepare(
    run_id: Any, store: dict[str, Any], nodes: dict[str, Any], asked: dict[str, Any]
) -> tuple[dsl.PipelineTask, Any, Any]:
    """The first task, whose outputs are what the run works with, the masked data set's URI, and the split's.

    store: ``store_endpoint`` … of the pipeline's parameters; nodes: as :func:`hep2flow.pipelines.placement.place` takes them
    asked: what ``begin`` takes beside them
    """
    begun = begin(
        run_id=run_id,
        job_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
        store_secret=nodes["store_secret"],
        **asked,
        **store,
    )
    begun.set_caching_options(False)
    address, run, data = begun.outputs["store"], begun.outputs["run_id"], begun.outputs["data"]
    ingested = ingest(store=address, run_id=run, source=asked["source"], format=asked["format"])
    dsl.importer(artifact_uri=ingested.outputs["dataset"], artifact_class=dsl.Dataset)
    masked = mask(store=address, run_id=run, dataset=ingested.outputs["dataset"], data=data)
    dsl.importer(artifact_uri=masked.output, artifact_class=dsl.Dataset)
    divided = split(
        store=address, run_id=run, dataset=masked.output, given_split=ingested.outputs["given_split"], data=data
    )
    place(begun, nodes, cpu="100m", memory="512Mi", hours=1)
    place(ingested, nodes, cpu="1", memory="2Gi", hours=6)
    place(masked, nodes, cpu="2", memory="2Gi", hours=6)
    place(divided, nodes, cpu="500m", memory="1Gi", hours=1)
    return begun, masked.output, divided.output
