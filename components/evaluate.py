"""Evaluate as a component."""

from hep2flow.components import images
from kfp import dsl


@dsl.component(base_image=images.RAY, install_kfp_package=False)
def evaluate(
    store: dict,  # type: ignore[type-arg]
    run_id: str,
    recipe: str,
    training: str,
    dataset: str,
    split: str,
    engine: str,
    cluster: dict,  # type: ignore[type-arg]
    metrics: dsl.Output[dsl.Metrics],
    classification: dsl.Output[dsl.ClassificationMetrics],
) -> str:
    """Evaluate one training, here or as a RayJob; returns the evaluation's URI, and shows its figures in Kubeflow's page."""
    from pathlib import Path

    from hep2flow.cluster.engine import perform_on
    from hep2flow.cluster.specification import Specification
    from hep2flow.cluster.step import step
    from hep2flow.recipe import read_recipe
    from hep2flow.stages.forms import in_form

    read = read_recipe(recipe)
    with step(store, run_id, "evaluate", read.name) as (opened, record):
        form = in_form(opened, dataset, read.data)
        asked = Specification(run_id=run_id, recipe=read, dataset=form, split=split, training=training)
        result = perform_on(engine, cluster, opened, asked, record)
        record.take(result)
        figures, curve = (opened.get_json(f"{opened.key(result.uri)}/{name}.json") for name in ("metrics", "roc"))
    for name in ("aca", "mca", "macro_f1", "weighted_f1", "n", "network", "subset", "selected_on_test"):
        metrics.log_metric(name, figures[name])
    # The page of Kubeflow draws both of one artifact.
    classification.log_confusion_matrix(figures["labels"], figures["confusion"])
    classification.log_roc_curve(**curve)
    for artifact in (metrics, classification):
        # The local runner's cache never hits for an output without a file.
        Path(artifact.path).parent.mkdir(parents=True, exist_ok=True)
        Path(artifact.path).touch()
    return result.uri
