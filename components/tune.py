"""Tune as a component."""

from typing import NamedTuple

from hep2flow.components import images
from kfp import dsl


@dsl.component(base_image=images.RAY, install_kfp_package=False)
def tune(
    store: dict,  # type: ignore[type-arg]
    run_id: str,
    job_id: str,
    recipe: str,
    dataset: str,
    split: str,
    engine: str,
    cluster: dict,  # type: ignore[type-arg]
    store_secret: str,
) -> NamedTuple("Tuned", [("model", str), ("sweep", str), ("judgement", str)]):  # type: ignore[valid-type]
    """Sweep one recipe of the run through Ray Tune, and judge what it chose; here or as a RayJob.

    Returns the name of the first model that is trained in full, and the URIs of sweep and judgement; the latter is empty
    where nothing was judged.
    """
    from typing import NamedTuple

    from hep2flow.execution.dispatch import perform_on
    from hep2flow.execution.job_spec import Specification, Trials
    from hep2flow.execution.kubeflow.pipeline_step import step
    from hep2flow.execution.kubernetes.cluster_options import with_secret
    from hep2flow.stages.begin import recipe_in
    from hep2flow.stages.finalists import finalist_names

    class Tuned(NamedTuple):
        model: str
        sweep: str
        judgement: str

    with step(store, run_id, job_id, "tune", recipe) as here:
        read, wanted = recipe_in(here.run, recipe), here.run.parameters["tune"]
        trials = Trials(**{name: wanted[name] for name in Trials.model_fields})
        asked = Specification(run_id=here.run.run_id, recipe=read, dataset=dataset, split=split, sweep=trials)
        result = perform_on(engine, with_secret(cluster, store_secret), here.store, asked, here.record)
        here.record.take(result)
    model = finalist_names(read, wanted["finals"])[0]
    return Tuned(model, result.uri, result.summary.get("judgement_uri", ""))
