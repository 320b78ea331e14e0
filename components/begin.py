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
) -> NamedTuple("Begun", [("run_id", str), ("store", dict), ("data", dict), ("recipes", list)]):  # type: ignore[valid-type]
    """Validate the recipes and write the run's record.

    What travels on: the store's address as one value, and each recipe under each seed as complete YAML.
    """
    from typing import Any, NamedTuple, cast

    from hep2flow.cluster.step import mendable, store_of
    from hep2flow.stages.begin import begin as stage

    class Begun(NamedTuple):
        run_id: str
        store: dict[str, Any]
        data: dict[str, Any]
        recipes: list[str]

    store = {"endpoint": store_endpoint, "region": store_region, "bucket": store_bucket, "prefix": store_prefix}
    with mendable():
        begun, read = stage(
            store_of(store),
            run_id,
            job_id,
            {"source": source, "format": format, "seeds": seeds},
            recipes,
            cast("Any", profile),
            seeds,
        )
    return Begun(begun, store, read[0].data.model_dump(mode="json"), [recipe.to_yaml() for recipe in read])
