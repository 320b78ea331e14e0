"""Train and evaluate recipes on the same cells, and report on all of them: the second half of every pipeline here.

Pipelines of their own, because KFP's local runner replaces task outputs inside a loop by the loop's item; a pipeline's
inputs it passes on rightly.
"""

from hep2flow.components.evaluate import evaluate
from hep2flow.components.finalists import finalists
from hep2flow.components.report import report
from hep2flow.components.train import train
from hep2flow.components.tune import tune
from hep2flow.pipelines.placement import place
from kfp import dsl


@dsl.pipeline(
    name="compare", description="Train and evaluate every recipe on the same cells, and report on all of them."
)
def compare(
    store: dict,  # type: ignore[type-arg]
    run_id: str,
    recipes: list,  # type: ignore[type-arg]
    dataset: str,
    split: str,
    engine: str,
    cluster: dict,  # type: ignore[type-arg]
    store_secret: str,
    node_selector: dict,  # type: ignore[type-arg]
    tolerations: list,  # type: ignore[type-arg]
    sweeps: list = [],  # type: ignore[type-arg] # noqa: B006 - KFP reads it, nobody changes it
    judgements: list = [],  # type: ignore[type-arg] # noqa: B006
) -> None:
    """recipes: complete; sweeps, judgements: what they come from, for the report."""
    nodes = {"store_secret": store_secret, "node_selector": node_selector, "tolerations": tolerations}
    with dsl.ParallelFor(recipes, name="model") as recipe:
        trained = train(
            store=store,
            run_id=run_id,
            recipe=recipe,
            dataset=dataset,
            split=split,
            engine=engine,
            cluster=cluster,
        )
        place(trained, nodes, cpu="500m", memory="2Gi", hours=168)
        dsl.importer(artifact_uri=trained.output, artifact_class=dsl.Model)
        evaluated = evaluate(
            store=store,
            run_id=run_id,
            recipe=recipe,
            training=trained.output,
            dataset=dataset,
            split=split,
            engine=engine,
            cluster=cluster,
        )
        place(evaluated, nodes, cpu="1", memory="4Gi", hours=24)
    reported = report(
        store=store,
        run_id=run_id,
        evaluations=dsl.Collected(evaluated.outputs["Output"]),
        sweeps=sweeps,
        judgements=judgements,
    )
    # It tells the times of this very run.
    reported.set_caching_options(False)
    place(reported, nodes, cpu="1", memory="2Gi", hours=1)


@dsl.pipeline(
    name="tune-and-compare",
    description="Sweep every recipe, judge what was chosen, and train, evaluate and report on the best ones.",
)
def tune_and_compare(
    store: dict,  # type: ignore[type-arg]
    run_id: str,
    searched: list,  # type: ignore[type-arg]
    beside: list,  # type: ignore[type-arg]
    dataset: str,
    split: str,
    seeds: int,
    trials: int,
    hours: float,
    concurrency: int,
    earlier: str,
    judge: int,
    engine: str,
    cluster: dict,  # type: ignore[type-arg]
    store_secret: str,
    node_selector: dict,  # type: ignore[type-arg]
    tolerations: list,  # type: ignore[type-arg]
) -> None:
    """searched: the recipes whose space is swept; beside: recipes that are trained as they are, for comparison."""
    nodes = {"store_secret": store_secret, "node_selector": node_selector, "tolerations": tolerations}
    with dsl.ParallelFor(searched, name="search", parallelism=1) as recipe:
        tuned = tune(
            store=store,
            run_id=run_id,
            recipe=recipe,
            dataset=dataset,
            split=split,
            trials=trials,
            hours=hours,
            concurrency=concurrency,
            earlier=earlier,
            judge=judge,
            engine=engine,
            cluster=cluster,
        )
        place(tuned, nodes, cpu="500m", memory="2Gi", hours=168)
    chosen = finalists(tuned=dsl.Collected(tuned.outputs["best"]), seeds=seeds, beside=beside)
    place(chosen, nodes, cpu="100m", memory="512Mi", hours=1)
    compare(
        store=store,
        run_id=run_id,
        recipes=chosen.output,
        dataset=dataset,
        split=split,
        engine=engine,
        cluster=cluster,
        **nodes,
        sweeps=dsl.Collected(tuned.outputs["sweep"]),
        judgements=dsl.Collected(tuned.outputs["judgement"]),
    )
