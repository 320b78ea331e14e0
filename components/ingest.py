"""Ingest as a component."""

from typing import NamedTuple

from hep2flow.components import images
from kfp import dsl


@dsl.component(base_image=images.STEP, install_kfp_package=False)
def ingest(
    store: dict,  # type: ignore[type-arg]
    run_id: str,
    source: str,
    format: str,
) -> NamedTuple("Ingested", [("dataset", str), ("given_split", str)]):  # type: ignore[valid-type]
    """A laboratory's files become a data set in the store; ``given_split`` is empty where the source has none."""
    from typing import NamedTuple

    from hep2flow.cluster.step import step
    from hep2flow.stages.ingest import ingest as stage

    class Ingested(NamedTuple):
        dataset: str
        given_split: str

    with step(store, run_id, "ingest") as (opened, record):
        result = stage(opened, source, format)
        record.take(result)
    return Ingested(result.uri, result.summary["given_split"])
