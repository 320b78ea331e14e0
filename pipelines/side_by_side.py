"""The pipeline of one run for KFP's local runner, with its models trained side by side.

KFP 2.17's local runner runs two tasks at once only in a loop, and passes outputs of earlier tasks into a loop only
through a nested pipeline. The tasks are those of :mod:`hep2flow.pipelines.unrolled`.
"""

from collections.abc import Iterable
from typing import Any

from kfp import dsl

from hep2flow.pipelines.tasks import Cells, Tasks


def side_by_side(models: Iterable[str]) -> Any:
    """Build a pipeline that trains these models, two at once; its parameters are those of ``unrolled``."""
    names = list(models)

    @dsl.pipeline(name="compare")
    def compare(
        dataset: str,
        split: str,
        run_id: str,
        engine: str,
        cluster: dict[str, Any],
        store_endpoint: str,
        store_region: str,
        store_bucket: str,
        store_prefix: str,
        store_secret: str,
        node_selector: dict[str, Any],
        tolerations: list[Any],
    ) -> None:
        store = {"endpoint": store_endpoint, "region": store_region, "bucket": store_bucket, "prefix": store_prefix}
        nodes = {"store_secret": store_secret, "node_selector": node_selector, "tolerations": tolerations}
        tasks = Tasks(run_id, store, nodes, engine, cluster)
        with dsl.ParallelFor(names, name="model") as model:
            evaluation = tasks.train_and_evaluate(model, Cells(dataset, split))
        tasks.report(dsl.Collected(evaluation))

    @dsl.pipeline(name="hep2flow-reproduce")
    def pipeline(
        source: str,
        run_id: str,
        format: str,
        store_endpoint: str,
        store_region: str,
        store_bucket: str,
        store_prefix: str,
        engine: str = "local",
        cluster: dict[str, Any] = {},  # noqa: B006 - KFP reads it, nobody changes it
        store_secret: str = "none",  # noqa: S107 - the name of a Secret
        node_selector: dict[str, Any] = {},  # noqa: B006
        tolerations: list[Any] = [],  # noqa: B006
    ) -> None:
        store = {"endpoint": store_endpoint, "region": store_region, "bucket": store_bucket, "prefix": store_prefix}
        nodes = {"store_secret": store_secret, "node_selector": node_selector, "tolerations": tolerations}
        cells = Tasks(run_id, store, nodes, engine, cluster).prepare(source, format)
        shared = {f"store_{name}": value for name, value in store.items()} | nodes
        compare(**cells._asdict(), run_id=run_id, engine=engine, cluster=cluster, **shared)

    return pipeline
