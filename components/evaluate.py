"""Evaluate as a component."""

from typing import Any

from kfp import dsl

from hep2flow.components import images


@dsl.component(base_image=images.RAY, install_kfp_package=False)
def evaluate(
    store: dict[str, str],
    run_id: str,
    job_id: str,
    models: str,
    trainings: str,
    dataset: str,
    split: str,
    engine: str,
    cluster: dict[str, Any],
    store_secret: str,
    metrics: dsl.Output[dsl.Metrics],
    classification: dsl.Output[dsl.ClassificationMetrics],
    sweep: str = "",
) -> str:
    """Evaluate trainings, in this step or as RayJobs, and show the figures in Kubeflow's page.

    ``models`` and ``trainings`` are as ``train`` takes and returns them.

    Returns:
        URIs of the evaluations, with spaces between.
    """
    from hep2flow.execution.dispatch import run_on_engine
    from hep2flow.execution.job_spec import JobSpec
    from hep2flow.execution.kubeflow.pipeline_step import describe_artifact, step
    from hep2flow.execution.kubernetes.cluster_options import with_secret
    from hep2flow.stages.begin import recipe_of_model
    from hep2flow.stages.masked_variant import masked_variant

    results = []
    for model, training in zip(models.split(), trainings.split(), strict=True):
        with step(store, run_id, job_id, "evaluate", model) as here:
            recipe = recipe_of_model(here.store, here.run, model, sweep)
            form = masked_variant(here.store, dataset, recipe.data)
            spec = JobSpec(run_id=here.run.run_id, recipe=recipe, dataset=form, split=split, training=training)
            results.append(run_on_engine(engine, with_secret(cluster, store_secret), here.store, spec, here.record))
            here.record.set_result(results[-1])
            folder = here.store.key(results[-1].uri)
            figures, curve = (here.store.get_json(f"{folder}/{name}.json") for name in ("metrics", "roc"))
    describe_artifact(metrics, *results)
    # Kubeflow's page draws both from one artifact, which holds one model's.
    classification.log_confusion_matrix(figures["labels"], figures["confusion"])
    classification.log_roc_curve(**curve)
    return " ".join(result.uri for result in results)
