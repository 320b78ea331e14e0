"""Report as a component."""

from hep2flow.components import images
from kfp import dsl


@dsl.component(base_image=images.STEP, install_kfp_package=False)
def report(
    store: dict,  # type: ignore[type-arg]
    run_id: str,
    evaluations: list,  # type: ignore[type-arg]
    sweeps: list,  # type: ignore[type-arg]
    judgements: list,  # type: ignore[type-arg]
    page: dsl.Output[dsl.HTML],
    summary: dsl.Output[dsl.Markdown],
) -> str:
    """One page for all models of the run; returns its URI."""
    from pathlib import Path

    from hep2flow.cluster.step import step
    from hep2flow.stages.report import report as stage

    with step(store, run_id, "report") as (opened, record):
        result = stage(opened, run_id, evaluations, list(zip(sweeps, judgements, strict=True)))
        record.take(result)
        for artifact, name in ((page, "index.html"), (summary, "summary.md")):
            opened.get_file(f"{opened.key(result.uri)}/{name}", Path(artifact.path))
    return result.uri
