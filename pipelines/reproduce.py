"""Reproduce and compare: ingest -> mask -> split -> for each recipe {train -> evaluate} -> report.

With ``tune`` each recipe's search space is swept first, and the tuned recipes are trained beside the recipes as they are.
The same definition runs on Kubeflow and, through the local runner, on a laptop.
"""

from hep2flow.pipelines.compare import compare, tune_and_compare
from hep2flow.pipelines.prepare import closing, prepare
from kfp import dsl


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
    tune: bool = False,
    trials: int = 32,
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
    """source: an s3:// prefix or a path the step can read; recipes: shipped names, or whole recipes as YAML;
    seeds: trainings of each recipe, under successive seeds; on a cluster seeds and recipes run side by side;
    tune: sweep each recipe first, with so many trials;
    engine: where trainings and sweeps run, local (the step's own pod), ray (a cluster that is there) or rayjob;
    cluster: what the cluster is, keys as in :class:`hep2flow.cluster.options.ClusterOptions`;
    run_id: empty for one that follows from the job, so that recurring runs each get their own;
    store_secret: Secret with the store's credentials, for the steps and for Ray's pods; "none" where their service account
    has the right itself; node_selector, tolerations: of the steps, in Kubernetes' own form; those of Ray's workers stand in
    cluster.
    """
    store = {
        "store_endpoint": store_endpoint,
        "store_region": store_region,
        "store_bucket": store_bucket,
        "store_prefix": store_prefix,
    }
    sweep = {"trials": trials, "hours": 0.0, "concurrency": 0, "earlier": "", "judge": 5}
    asked = {"source": source, "format": format, "recipes": recipes, "profile": profile, "seeds": seeds}
    nodes = {"store_secret": store_secret, "node_selector": node_selector, "tolerations": tolerations}
    with dsl.ExitHandler(closing(run_id, store, nodes), name="run"):
        begun, dataset, split = prepare(
            run_id,
            store,
            nodes,
            {**asked, "tune": tune, "finals": seeds, **sweep, "engine": engine, "cluster": cluster},
        )
        shared = {
            "store": begun.outputs["store"],
            "run_id": begun.outputs["run_id"],
            "dataset": dataset,
            "split": split,
            "engine": engine,
            "cluster": begun.outputs["cluster"],
            **nodes,
        }
        with dsl.If(tune == True, name="tuned"):  # noqa: E712 - KFP reads the comparison
            tune_and_compare(
                searched=begun.outputs["searched"],
                beside=begun.outputs["recipes"],
                seeds=seeds,
                **sweep,
                **shared,
            )
        with dsl.Else(name="as-they-are"):
            compare(recipes=begun.outputs["recipes"], **shared)
