"""Begin as a component: the first task of a run that is started in Kubeflow's page or by its schedule."""

from typing import Any

from kfp import dsl

from hep2flow.components import images


@dsl.component(base_image=images.STEP, install_kfp_package=False)
def begin(
    store: dict[str, str],
    run_id: str,
    job_id: str,
    source: str,
    format: str,
    recipes: list[str],
    profile: str,
    engine: str,
    cluster: dict[str, Any],
    store_secret: str,
    seeds: int = 1,
    trials: int = 0,
    hours: float = 0.0,
    concurrency: int = 0,
    earlier: str = "",
    judge: int = 0,
) -> list[str]:
    """Validate what a run is asked to do and write its record.

    With ``trials`` above 0 each recipe is swept, with the settings after it; else the recipes are trained as they are.

    Returns:
        What the pipeline loops over: of a sweep the recipes' names, else groups of models trained one after the other.
    """
    from typing import cast

    from hep2flow.execution.kubeflow.pipeline_step import exit_on_error, open_pipeline_store
    from hep2flow.execution.kubernetes.cluster_options import parse_engine, with_secret
    from hep2flow.recipe import Profile
    from hep2flow.search.settings import parse_sweep_settings
    from hep2flow.stages.begin import begin as stage
    from hep2flow.stages.begin import group_models, resolve_recipe, run_id_of, run_parameters

    with exit_on_error():
        parse_engine(engine, with_secret(cluster, store_secret))
        opened = open_pipeline_store(store)
        chosen = [resolve_recipe(opened, text, cast("Profile", profile)) for text in recipes]
        settings = {"hours": hours, "concurrency": concurrency, "earlier": earlier, "judge": judge}
        sweep = parse_sweep_settings({"trials": trials, **settings}) if trials > 0 else None
        parameters = run_parameters(source, format, seeds, sweep)
        record = stage(opened, run_id_of(run_id, job_id), parameters, chosen, job_id)
    return list(record.recipes) if trials else group_models(list(record.models))
