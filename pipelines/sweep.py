"""Tune, for Kubeflow's page: begin -> ingest -> mask, split -> for each recipe {tune -> train -> evaluate} -> report."""

from typing import Any

from kfp import dsl

from hep2flow.pipelines.tasks import Tasks


@dsl.pipeline(
    name="hep2flow-sweep",
    description="HEp-2 cells: sweep each recipe's search space, judge what was chosen, train and evaluate it, report.",
)
def sweep(
    source: str,
    format: str = "auto",
    recipes: list[str] = ["convnext-b", "coat-mini"],  # noqa: B006 - KFP reads it, nobody changes it
    profile: str = "paper",
    trials: int = 32,
    hours: float = 0.0,
    concurrency: int = 0,
    earlier: str = "",
    judge: int = 5,
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
    """Sweep recipes one after the other, and train and evaluate each winner.

    Args:
        source: An s3:// prefix or a path that the step can read.
        format: Of the source.
        recipes: Shipped names, s3:// URIs of recipes in the store, or complete recipes as YAML.
        profile: Of the shipped recipes.
        trials: Of each recipe's sweep.
        hours: After which a sweep starts no more trials; 0 for no limit.
        concurrency: Trials at once; 0 for no limit.
        earlier: Run, or URI of a sweep, to learn from; empty for none.
        judge: Trainings of each winner, and of its recipe as it is, that judge the winner.
        run_id: Empty for one that follows from the job, so that each run of a recurring one has its own.
        engine: Where trainings and sweeps run: local (the step's own pod), ray (an existing cluster) or rayjob.
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
    settings = {"trials": trials, "hours": hours, "concurrency": concurrency, "earlier": earlier, "judge": judge}
    started = tasks.begin(source=source, format=format, recipes=recipes, profile=profile, **settings)
    cells = tasks.prepare(source, format, after=started)
    with dsl.ParallelFor(started.output, name="recipe", parallelism=1) as recipe:
        tuned = tasks.tune(recipe, cells)
        evaluation = tasks.train_and_evaluate(tuned.outputs["model"], cells, tuned.outputs["sweep"])
    sweeps, judgements = (dsl.Collected(tuned.outputs[name]) for name in ("sweep", "judgement"))
    tasks.report(dsl.Collected(evaluation), sweeps, judgements)
