"""Tune, for Kubeflow's page: begin -> ingest -> mask, split -> for each recipe {tune -> train -> evaluate} -> report."""

from hep2flow.pipelines.tasks import tasks_of
from kfp import dsl


@dsl.pipeline(
    name="hep2flow-sweep",
    description="HEp-2 cells: sweep each recipe's search space, judge what was chosen, train and evaluate it, report.",
)
def sweep(
    source: str,
    format: str = "auto",
    recipes: list = ["convnext-b", "coat-mini"],  # type: ignore[type-arg] # noqa: B006 - KFP reads it, nobody changes it
    profile: str = "paper",
    trials: int = 32,
    hours: float = 0.0,
    concurrency: int = 0,
    earlier: str = "",
    judge: int = 5,
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
    whole recipes as YAML, swept one after the other;
    trials: of each recipe's sweep; hours, concurrency: 0 for no limit; earlier: a run to learn from, or empty;
    judge: trainings of each winner, and of its recipe as it is, that judge it;
    engine: where trainings and sweeps run, local (the step's own pod), ray (a cluster that is there) or rayjob;
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
        trials=trials,
        hours=hours,
        concurrency=concurrency,
        earlier=earlier,
        judge=judge,
    )
    cells = tasks.prepare(source, format, after=begun)
    with dsl.ParallelFor(begun.output, name="recipe", parallelism=1) as recipe:
        tuned = tasks.tune(recipe, cells)
        evaluation = tasks.train_and_evaluate(tuned.outputs["model"], cells, tuned.outputs["sweep"])
    tasks.report(
        dsl.Collected(evaluation), dsl.Collected(tuned.outputs["sweep"]), dsl.Collected(tuned.outputs["judgement"])
    )
