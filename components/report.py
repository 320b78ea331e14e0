"""Report as a component."""

from hep2flow.components import images
from kfp import dsl


@dsl.component(base_image=images.STEP, install_kfp_package=False)
def report(
    store: dict,  # type: ignore[type-arg]
    run_id: str,
    job_id: str,
    evaluations: list,  # type: ignore[type-arg]
    page: dsl.Output[dsl.HTML],
    summary: dsl.Output[dsl.Markdown],
    sweeps: list = [],  # type: ignore[type-arg] # noqa: B006 - KFP reads it, nobody changes it
    judgements: list = [],  # type: ignore[type-arg] # noqa: B006
) -> str:
    """One page for all models of the run, which ends the run; returns its URI.

    evaluations: as ``evaluate`` returns them
    """
    from pathlib import Path

    from hep2flow.execution.kubeflow.pipeline_step import step
    from hep2flow.stages.report import report as stage
    from hep2flow.store.runs import finish_run

    with step(store, run_id, job_id, "report") as here:
        each = [uri for uris in evaluations for uri in uris.split()]
        result = stage(here.store, here.run.run_id, each, list(zip(sweeps, judgements, strict=True)))
        here.record.take(result)
        for artifact, name in ((page, "index.html"), (summary, "summary.md")):
            here.store.get_file(f"{here.store.key(result.uri)}/{name}", Path(artifact.path))
    finish_run(here.store, here.run.run_id, "succeeded", job_id)
    return result.uri
