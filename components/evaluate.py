"""Evaluate as a component."""

from hep2flow.components import images
from kfp import dsl


@dsl.component(base_image=images.RAY, install_kfp_package=False)
def evaluate(
    store: dict,  # type: ignore[type-arg]
    run_id: str,
    job_id: str,
    models: str,
    trainings: str,
    dataset: str,
    split: str,
    engine: str,
    cluster: dict,  # type: ignore[type-arg]
    store_secret: str,
    metrics: dsl.Output[dsl.Metrics],
    classification: dsl.Output[dsl.ClassificationMetrics],
    sweep: str = "",
) -> str:
    """Evaluate a training, here or as a RayJob; returns the evaluation's URI, and shows its figures in Kubeflow's page.

    models, trainings: as ``train`` takes and returns them
    """
    from hep2flow.execution.dispatch import perform_on
    from hep2flow.execution.job_spec import Specification
    from hep2flow.execution.kubeflow.pipeline_step import describe, step
    from hep2flow.execution.kubernetes.cluster_options import with_secret
    from hep2flow.stages.begin import recipe_of_model
    from hep2flow.stages.masked_variant import in_form

    results = []
    for model, training in zip(models.split(), trainings.split(), strict=True):
        with step(store, run_id, job_id, "evaluate", model) as here:
            recipe = recipe_of_model(here.store, here.run, model, sweep)
            form = in_form(here.store, dataset, recipe.data)
            asked = Specification(run_id=here.run.run_id, recipe=recipe, dataset=form, split=split, training=training)
            results.append(perform_on(engine, with_secret(cluster, store_secret), here.store, asked, here.record))
            here.record.take(results[-1])
            folder = here.store.key(results[-1].uri)
            figures, curve = (here.store.get_json(f"{folder}/{name}.json") for name in ("metrics", "roc"))
    describe(metrics, *results)
    # The page of Kubeflow draws both of one artifact, and one model's.
    classification.log_confusion_matrix(figures["labels"], figures["confusion"])
    classification.log_roc_curve(**curve)
    return " ".join(result.uri for result in results)
