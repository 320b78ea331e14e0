"""The pipeline of one run for Kubeflow's local runner, with its models trained side by side.

That runner works on two tasks at once only where they are iterations of a loop, and hands outputs of earlier tasks into
a loop only through a nested pipeline. The tasks are those of :mod:`hep2flow.pipelines.unrolled`.
"""

from collections.abc import Iterable
from typing import Any

from hep2flow.pipelines.tasks import Cells, tasks_of
from kfp import dsl


def side_by_side(models: Iterable[str]) -> Any:
    """A Kubeflow pipeline that trains these models as their recipes are, two at once; parameters as those of unrolled."""
    names = list(models)

    @dsl.pipeline(name="compare")
    def compare(
        dataset: str,
        split: str,
        run_id: str,
        engine: str,
        cluster: dict,  # type: ignore[type-arg]
        store_endpoint: str,
        store_region: str,
        store_bucket: str,
        store_prefix: str,
        store_secret: str,
        node_selector: dict,  # type: ignore[type-arg]
        tolerations: list,  # type: ignore[type-arg]
    ) -> None:
        tasks = tasks_of(
            run_id,
            engine,
            cluster,
            store_endpoint,
            store_region,
            store_bucket,
            store_prefix,
            store_secret,
            node_selector,
            tolerations,
        )
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
        cluster: dict = {},  # type: ignore[type-arg] # noqa: B006 - KFP reads it, nobody changes it
        store_secret: str = "none",  # noqa: S107 - the name of a Secret
        node_selector: dict = {},  # type: ignore[type-arg] # noqa: B006
        tolerations: list = [],  # type: ignore[type-arg] # noqa: B006
    ) -> None:
        shared = {
            "run_id": run_id,
            "engine": engine,
            "cluster": cluster,
            "store_endpoint": store_endpoint,
            "store_region": store_region,
            "store_bucket": store_bucket,
            "store_prefix": store_prefix,
            "store_secret": store_secret,
            "node_selector": node_selector,
            "tolerations": tolerations,
        }
        cells = tasks_of(**shared).prepare(source, format)
        compare(**cells._asdict(), **shared)

    return pipeline
