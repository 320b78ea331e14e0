"""First task of a run: its id, its record, and what its models share."""

from typing import NamedTuple

from hep2flow.components import images
from kfp import dsl


@dsl.component(base_image=images.STEP, install_kfp_package=False)
def begin(
    run_id: str,
    job_id: str,
    recipes: list,  # type: ignore[type-arg]
    profile: str,
    seeds: int,
    source: str,
    format: str,
    store_endpoint: str,
    store_region: str,
    store_bucket: str,
    store_prefix: str,
    store_secret: str,
    tune: bool,
    trials: int,
    hours: float,
    concurrency: int,
    earlier: str,
    judge: int,
    finals: int,
    engine: str,
    cluster: dict,  # type: ignore[type-arg]
) -> NamedTuple(  # type: ignore[valid-type]
    "Begun",
    [("run_id", str), ("store", dict), ("data", dict), ("recipes", list), ("searched", list), ("cluster", dict)],
):
    """Validate the recipes and write the run's record.

    tune: whether each recipe's search space is swept; what stands after it is what its sweep is asked to do
    engine, cluster: refused here where they are wrong, before any work
    store_secret: Kubernetes Secret with the store's credentials
    What travels on: the store's address as one value, each recipe under each seed as complete YAML, the recipes that are
    searched around, and the cluster with its Secret.
    """
    from typing import Any, NamedTuple, cast

    from hep2flow.cluster.options import checked_engine, with_secret
    from hep2flow.cluster.step import mendable, store_of
    from hep2flow.stages.begin import asked
    from hep2flow.stages.begin import begin as stage

    class Begun(NamedTuple):
        run_id: str
        store: dict[str, Any]
        data: dict[str, Any]
        recipes: list[str]
        searched: list[str]
        cluster: dict[str, Any]

    store = {"endpoint": store_endpoint, "region": store_region, "bucket": store_bucket, "prefix": store_prefix}
    with mendable():
        entered = with_secret(cluster, store_secret)
        checked_engine(engine, entered)
        begun, read, searched = stage(
            store_of(store),
            run_id,
            job_id,
            asked(source, format, seeds, tune, trials, hours, concurrency, earlier, judge, finals),
            recipes,
            cast("Any", profile),
            seeds,
        )
    data = read[0].data.model_dump(mode="json")
    return Begun(begun, store, data, [one.to_yaml() for one in read], [one.to_yaml() for one in searched], entered)
