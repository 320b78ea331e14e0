"""Ingest as a component."""

from typing import NamedTuple

from kfp import dsl

from hep2flow.components import images


@dsl.component(base_image=images.STEP, install_kfp_package=False)
def ingest(
    store: dict[str, str],
    run_id: str,
    job_id: str,
    source: str,
    format: str,
    cells: dsl.Output[dsl.Dataset],
) -> NamedTuple("Ingested", [("dataset", str), ("given_split", str)]):  # type: ignore[valid-type]
    """Convert a laboratory's files to a data set in the store; ``given_split`` is empty where the source has none."""
    from typing import NamedTuple

    from hep2flow.execution.kubeflow.pipeline_step import describe_artifact, step
    from hep2flow.stages.ingest import ingest as stage

    class Ingested(NamedTuple):
        dataset: str
        given_split: str

    with step(store, run_id, job_id, "ingest", first=True) as here:
        result = stage(here.store, source, format)
        here.record.set_result(result)
        describe_artifact(cells, result)
    return Ingested(result.uri, result.summary["given_split"])
