"""Reproduce, for Kubeflow's page: begin -> ingest -> mask, split -> for each model {train -> evaluate} -> report.

Whoever starts it there names the recipes, so it loops over models that it learns from its first task. ``hep2flow
submit`` and ``hep2flow run`` know them before, and build :mod:`hep2flow.pipelines.unrolled` of the same tasks.
"""

from hep2flow.pipelines.tasks import tasks_of
from kfp import dsl

AT_ONCE = 32  # each step is a pod that asks for half a processor, mostly to wait


@dsl.pipeline(
    name="hep2flow-reproduce",
    description="HEp-2 cells: ingest, mask, split, train and evaluate each recipe, report.",
)
def reproduce(
    source: str,
    format: str = "auto",
    recipes: list = ["convnext-b", "coat-mini"],  # type: ignore[type-arg] # noqa: B006 - KFP reads it, nobody changes it
    profile: str = "paper",
    seeds: int = 1,
    run_id: str = "",
    engine: str = "local",
    cluster: dict = {},  # type: ignore[type-arg] # noqa: B006
    store_endpoint: str = "http://seaweedfs.kubeflow:9000",
    store_region: str = "us-east-1",
    store_bucket: str = "mlpipeline",
    store_prefix: str = "hep2flow",
    store_secret: str = "mlpipeline-minio-artifact",  # noqa: S107 - the name of a Secret
    node_selector: dict = {},  # type: ignore[type-arg] # noqa: B006
    tolerations: list = [],  # type: ignore[type-arg] # noqa: B006
) -> None:
    """source: an s3:// prefix or a path the step can read; recipes: shipped names, s3:// URIs of recipes in the store, or
    whole recipes as YAML; seeds: trainings of each recipe, under successive seeds; up to 32 models
    are trained side by side;
    engine: where trainings run, local (the step's own pod), ray (a cluster that is there) or rayjob;
    cluster: what the cluster is, keys as in :class:`hep2flow.execution.kubernetes.cluster_options.ClusterOptions`;
    run_id: empty for one that follows from the job, so that recurring runs each get their own;
    store_secret: Secret with the store's credentials, for the steps and for Ray's pods; "none" where their service account
    has the right itself; node_selector, tolerations: of the steps, in Kubernetes' own form; those of Ray's workers stand in
    cluster.
    """
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
    begun = tasks.begin(
        source=source,
        format=format,
        recipes=recipes,
        profile=profile,
        seeds=seeds,
    )
    cells = tasks.prepare(source, format, after=begun)
    with dsl.ParallelFor(begun.output, name="models", parallelism=AT_ONCE) as models:
        evaluation = tasks.train_and_evaluate(models, cells)
    tasks.report(dsl.Collected(evaluation))
