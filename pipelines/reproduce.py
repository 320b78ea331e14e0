"""Reproduce and compare: ingest -> mask -> split -> for each recipe {train -> evaluate} -> report.

The same definition runs on Kubeflow and, through the local runner, on a laptop.
"""

from hep2flow.components.begin import begin
from hep2flow.components.evaluate import evaluate
from hep2flow.components.finish import finish
from hep2flow.components.ingest import ingest
from hep2flow.components.mask import mask
from hep2flow.components.report import report
from hep2flow.components.split import split
from hep2flow.components.train import train
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
) -> None:
    """A pipeline of its own because KFP's local runner replaces task outputs inside a loop by the loop's item;
    a pipeline's inputs it passes on rightly.
    """
    with dsl.ParallelFor(recipes, name="model") as recipe:
        trained = train(store=store, run_id=run_id, recipe=recipe, dataset=dataset, split=split)
        dsl.importer(artifact_uri=trained.output, artifact_class=dsl.Model)
        evaluated = evaluate(
            store=store,
            run_id=run_id,
            recipe=recipe,
            training=trained.output,
            dataset=dataset,
            split=split,
        )
    reported = report(store=store, run_id=run_id, evaluations=dsl.Collected(evaluated.outputs["Output"]))
    # It tells the times of this very run.
    reported.set_caching_options(False)


@dsl.pipeline(
    name="hep2flow-reproduce",
    description="HEp-2 cells: ingest, mask, split, train and evaluate each recipe, report.",
)
def reproduce(
    source: str,
    format: str = "auto",
    recipes: list = ["convnext-b", "coat-mini"],  # type: ignore[type-arg] # noqa: B006 - KFP reads it, nobody changes it
    profile: str = "paper",
    seeds: int = 1,
    run_id: str = "",
    store_endpoint: str = "http://seaweedfs.kubeflow:9000",
    store_region: str = "us-east-1",
    store_bucket: str = "mlpipeline",
    store_prefix: str = "hep2flow",
) -> None:
    """source: an s3:// prefix or a path the step can read; recipes: shipped names, or whole recipes as YAML;
    seeds: trainings of each recipe, under successive seeds; on a cluster seeds and recipes run side by side;
    run_id: empty for one that follows from the job, so that recurring runs each get their own.
    """
    closing = finish(
        run_id=run_id,
        job_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
        store_endpoint=store_endpoint,
        store_region=store_region,
        store_bucket=store_bucket,
        store_prefix=store_prefix,
    )
    closing.set_caching_options(False)
    with dsl.ExitHandler(closing, name="run"):
        begun = begin(
            run_id=run_id,
            job_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
            recipes=recipes,
            profile=profile,
            seeds=seeds,
            source=source,
            format=format,
            store_endpoint=store_endpoint,
            store_region=store_region,
            store_bucket=store_bucket,
            store_prefix=store_prefix,
        )
        begun.set_caching_options(False)
        store, run = begun.outputs["store"], begun.outputs["run_id"]
        ingested = ingest(store=store, run_id=run, source=source, format=format)
        dsl.importer(artifact_uri=ingested.outputs["dataset"], artifact_class=dsl.Dataset)
        masked = mask(store=store, run_id=run, dataset=ingested.outputs["dataset"], data=begun.outputs["data"])
        dsl.importer(artifact_uri=masked.output, artifact_class=dsl.Dataset)
        divided = split(
            store=store,
            run_id=run,
            dataset=masked.output,
            given_split=ingested.outputs["given_split"],
            data=begun.outputs["data"],
        )
        compare(
            store=store,
            run_id=run,
            recipes=begun.outputs["recipes"],
            dataset=masked.output,
            split=divided.output,
        )
