"""First task of a run that nobody submitted from a command line: its id, its record, and its models."""

from hep2flow.components import images
from kfp import dsl


@dsl.component(base_image=images.STEP, install_kfp_package=False)
def begin(
    store: dict,  # type: ignore[type-arg]
    run_id: str,
    job_id: str,
    source: str,
    format: str,
    recipes: list,  # type: ignore[type-arg]
    profile: str,
    engine: str,
    cluster: dict,  # type: ignore[type-arg]
    store_secret: str,
    seeds: int = 1,
    trials: int = 0,
    hours: float = 0.0,
    concurrency: int = 0,
    earlier: str = "",
    judge: int = 0,
) -> list:  # type: ignore[type-arg]
    """Validate what a run is asked to do and write its record; returns what the pipeline loops over.

    trials: of the sweep of each recipe, and what stands after it what else it is asked to do; 0 where the recipes are
    trained as they are. In a sweep that is
    the name of each recipe, else the names of models that are trained one after the other.
    """
    from typing import cast

    from hep2flow.execution.kubeflow.pipeline_step import mendable, store_of
    from hep2flow.execution.kubernetes.cluster_options import checked_engine, with_secret
    from hep2flow.recipe import Profile
    from hep2flow.stages.begin import asked, groups_of, recipe_of, run_id_of
    from hep2flow.stages.begin import begin as stage

    with mendable():
        checked_engine(engine, with_secret(cluster, store_secret))
        opened = store_of(store)
        read = [recipe_of(opened, text, cast("Profile", profile)) for text in recipes]
        parameters = asked(source, format, seeds, trials > 0, trials, hours, concurrency, earlier, judge)
        record = stage(opened, run_id_of(run_id, job_id), parameters, read, job_id)
    return list(record.recipes) if trials else groups_of(list(record.models))
