"""Tune as a component."""

from typing import Any, NamedTuple

from kfp import dsl

from hep2flow.components import images


@dsl.component(base_image=images.RAY, install_kfp_package=False)
def tune(
    store: dict[str, str],
    run_id: str,
    job_id: str,
    recipe: str,
    dataset: str,
    split: str,
    engine: str,
    cluster: dict[str, Any],
    store_secret: str,
) -> NamedTuple("Tuned", [("model", str), ("sweep", str), ("judgement", str)]):  # type: ignore[valid-type]
    """Sweep one recipe of the run through Ray Tune and judge its winner, in this step or as a RayJob.

    Returns:
        The name of the first model trained in full, the sweep's URI, and the judgement's, empty where nothing was judged.
    """
    from typing import NamedTuple

    from hep2flow.execution.dispatch import run_on_engine
    from hep2flow.execution.job_spec import JobSpec
    from hep2flow.execution.kubeflow.pipeline_step import step
    from hep2flow.execution.kubernetes.cluster_options import with_secret
    from hep2flow.search.settings import SweepSettings
    from hep2flow.stages.begin import recipe_of_run
    from hep2flow.stages.finalists import finalist_names

    class Tuned(NamedTuple):
        model: str
        sweep: str
        judgement: str

    with step(store, run_id, job_id, "tune", recipe) as here:
        searched, settings = recipe_of_run(here.run, recipe), SweepSettings(**here.run.parameters["tune"])
        spec = JobSpec(run_id=here.run.run_id, recipe=searched, dataset=dataset, split=split, sweep=settings)
        result = run_on_engine(engine, with_secret(cluster, store_secret), here.store, spec, here.record)
        here.record.set_result(result)
    model = finalist_names(searched, settings.finals)[0]
    return Tuned(model, result.uri, result.summary.get("judgement_uri", ""))
