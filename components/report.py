"""Report as a component."""

from kfp import dsl

from hep2flow.components import images


@dsl.component(base_image=images.STEP, install_kfp_package=False)
def report(
    store: dict[str, str],
    run_id: str,
    job_id: str,
    evaluations: list[str],
    page: dsl.Output[dsl.HTML],
    summary: dsl.Output[dsl.Markdown],
    sweeps: list[str] = [],  # noqa: B006 - KFP reads it, nobody changes it
    judgements: list[str] = [],  # noqa: B006
) -> str:
    """Write one page for all models, from what ``evaluate`` returned, and end the run; returns the page's URI."""
    from pathlib import Path

    from hep2flow.execution.kubeflow.pipeline_step import step
    from hep2flow.stages.report import report as stage
    from hep2flow.store.runs import finish_run

    with step(store, run_id, job_id, "report") as here:
        each = [uri for uris in evaluations for uri in uris.split()]
        result = stage(here.store, here.run.run_id, each, list(zip(sweeps, judgements, strict=True)))
        here.record.set_result(result)
        for artifact, name in ((page, "index.html"), (summary, "summary.md")):
            here.store.get_file(f"{here.store.key(result.uri)}/{name}", Path(artifact.path))
    finish_run(here.store, here.run.run_id, "succeeded", job_id)
    return result.uri
