"""Reproduce, for Kubeflow's page: begin -> ingest -> mask, split -> for each model {train -> evaluate} -> report.

The recipes are parameters, so it loops over models that it learns from its first task. ``hep2flow submit`` and ``hep2flow
run`` know the models before, and build :mod:`hep2flow.pipelines.unrolled` of the same tasks.
"""

from typing import Any

from kfp import dsl

from hep2flow.pipelines.tasks import Tasks

AT_ONCE = 32  # each step is a pod that requests half a CPU, mostly to wait


@dsl.pipeline(
    name="hep2flow-reproduce",
    description="HEp-2 cells: ingest, mask, split, train and evaluate each recipe, report.",
)
def reproduce(
    source: str,
    format: str = "auto",
    recipes: list[str] = ["convnext-b", "coat-mini"],  # noqa: B006 - KFP reads it, nobody changes it
    profile: str = "paper",
    seeds: int = 1,
    run_id: str = "",
    engine: str = "local",
    cluster: dict[str, Any] = {},  # noqa: B006
    store_endpoint: str = "http://seaweedfs.kubeflow:9000",
    store_region: str = "us-east-1",
    store_bucket: str = "mlpipeline",
    store_prefix: str = "hep2flow",
    store_secret: str = "mlpipeline-minio-artifact",  # noqa: S107 - the name of a Secret
    node_selector: dict[str, Any] = {},  # noqa: B006
    tolerations: list[Any] = [],  # noqa: B006
) -> None:
    """Train and evaluate recipes; up to 32 models are trained side by side.

    Args:
        source: An s3:// prefix or a path that the step can read.
        format: Of the source.
        recipes: Shipped names, s3:// URIs of recipes in the store, or complete recipes as YAML.
        profile: Of the shipped recipes.
        seeds: Trainings of each recipe, under successive seeds.
        run_id: Empty for one that follows from the job, so that each run of a recurring one has its own.
        engine: Where trainings run: local (the step's own pod), ray (an existing cluster) or rayjob.
        cluster: Keys as in :class:`hep2flow.execution.kubernetes.cluster_options.ClusterOptions`.
        store_endpoint: Of the object store; empty for AWS.
        store_region: Of the object store.
        store_bucket: Of the object store.
        store_prefix: Of all keys.
        store_secret: Secret with the store's credentials, for the steps and for Ray's pods; "none" where their service
            account has access itself.
        node_selector: Of the steps, as Kubernetes has it; that of Ray's workers is in cluster.
        tolerations: Likewise.
    """
    store = {"endpoint": store_endpoint, "region": store_region, "bucket": store_bucket, "prefix": store_prefix}
    nodes = {"store_secret": store_secret, "node_selector": node_selector, "tolerations": tolerations}
    tasks = Tasks(run_id, store, nodes, engine, cluster)
    started = tasks.begin(source=source, format=format, recipes=recipes, profile=profile, seeds=seeds)
    cells = tasks.prepare(source, format, after=started)
    with dsl.ParallelFor(started.output, name="models", parallelism=AT_ONCE) as models:
        evaluation = tasks.train_and_evaluate(models, cells)
    tasks.report(dsl.Collected(evaluation))
