"""The pipeline of one run whose models are known: each training, evaluation and sweep a task with a name of its own.

    ingest -> mask, split -> train-M -> evaluate-M -> report            for each model M
    ingest -> mask, split -> tune-R -> train-M -> evaluate-M -> report  for each recipe R that is swept

Everything else that the run is asked to do is in its record in the store, written before it starts.
"""

from collections.abc import Mapping
from typing import Any

from kfp import dsl

from hep2flow.errors import UserError
from hep2flow.pipelines.tasks import Tasks


def unrolled(name: str, models: Mapping[str, str]) -> Any:
    """Build a pipeline that trains these models, with the parameters that do not depend on them.

    Args:
        name: ``reproduce`` or ``sweep``.
        models: Name of each model -> the recipe whose sweep it comes from, empty for one trained as it is.

    Raises:
        UserError: Argo would give two tasks one name: KFP appends ``-driver`` to a task's own.
    """
    for model in models:
        if f"{model}-driver" in models:
            raise UserError(
                f"--recipe: {model} and {model}-driver are one name to Kubeflow; give the second another one"
            )

    @dsl.pipeline(name=f"hep2flow-{name}", description=f"HEp-2 cells: {', '.join(models)}"[:200])
    def pipeline(
        source: str,
        run_id: str,
        format: str = "auto",
        engine: str = "local",
        cluster: dict[str, Any] = {},  # noqa: B006 - KFP reads it, nobody changes it
        store_endpoint: str = "http://seaweedfs.kubeflow:9000",
        store_region: str = "us-east-1",
        store_bucket: str = "mlpipeline",
        store_prefix: str = "hep2flow",
        store_secret: str = "mlpipeline-minio-artifact",  # noqa: S107 - the name of a Secret
        node_selector: dict[str, Any] = {},  # noqa: B006
        tolerations: list[Any] = [],  # noqa: B006
    ) -> None:
        store = {"endpoint": store_endpoint, "region": store_region, "bucket": store_bucket, "prefix": store_prefix}
        nodes = {"store_secret": store_secret, "node_selector": node_selector, "tolerations": tolerations}
        tasks = Tasks(run_id, store, nodes, engine, cluster)
        cells = tasks.prepare(source, format)
        tuned: dict[str, dsl.PipelineTask] = {}
        for recipe in dict.fromkeys(filter(None, models.values())):
            task = tasks.tune(recipe, cells, f"tune-{recipe}")
            if tuned:  # one sweep at a time: each takes all free workers
                task.after(next(reversed(tuned.values())))
            tuned[recipe] = task
        evaluations = [
            tasks.train_and_evaluate(model, cells, tuned[recipe].outputs["sweep"] if recipe else "", f"-{model}")
            for model, recipe in models.items()
        ]
        sweeps, judgements = ([task.outputs[name] for task in tuned.values()] for name in ("sweep", "judgement"))
        tasks.report(evaluations, sweeps, judgements)

    return pipeline
