"""One run on this machine, from its request to its results."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hep2flow.errors import UserError
from hep2flow.execution.local.kfp_runner import StepRunner, SubprocessSteps, forward_sigterm, run_pipeline
from hep2flow.execution.run_request import RunRequest, pipeline_arguments
from hep2flow.execution.watch_run import run_failure, show_run_progress
from hep2flow.process import TerminatedError
from hep2flow.stages.begin import begin
from hep2flow.stages.initial_weights import with_stored_weights
from hep2flow.store.outage import log_to_stderr
from hep2flow.store.pull import pull
from hep2flow.store.runs import RunView, finish_run
from hep2flow.store.s3 import Store
from hep2flow.store.stage_recorder import record_interruption

if TYPE_CHECKING:
    from hep2flow.execution.local.docker_runner import Images


def run_locally(store: Store, run_id: str, request: RunRequest, folder: Path, images: Images | None = None) -> RunView:
    """Run the pipeline on this machine and copy report, metrics and checkpoints to ``folder``.

    The steps are containers of these images; processes where there are none.

    Raises:
        UserError: The user can fix it; in the failed stage's words.
        RunFailedError: A step failed otherwise.
        TerminatedError: SIGTERM came; the steps have saved their state.
    """
    source = request.source
    if not source.startswith("s3://"):
        if not Path(source).exists():
            raise UserError(f"--source {source}: there is no such file or folder")
        source = str(Path(source).resolve())
    steps: StepRunner = SubprocessSteps()
    if images is not None:
        from hep2flow.execution.local.docker_runner import DockerSteps

        steps = DockerSteps(images, None if source.startswith("s3://") else Path(source))
    recipes = [with_stored_weights(store, recipe) for recipe in request.recipes]
    record = begin(store, run_id, request.parameters(source), recipes)
    log_to_stderr(f"run {run_id}: {', '.join(recipe.title for recipe in recipes)}")
    # Imported here: KFP takes a second to import, and invalid requests are refused before.
    from hep2flow.pipelines.side_by_side import side_by_side
    from hep2flow.pipelines.unrolled import unrolled

    pipeline = unrolled(request.pipeline, record.models) if request.sweep else side_by_side(record.models)
    arguments = pipeline_arguments(request, source, run_id, store.address)
    log = folder / "log.txt"
    with record_interruption(store, run_id), show_run_progress(store, run_id), forward_sigterm(steps) as terminated:
        view = run_pipeline(store, pipeline, arguments, log, steps)
        if terminated.is_set():
            log_to_stderr(f"ended by SIGTERM; the same command with --run-id {run_id} resumes from here")
            raise TerminatedError
    if view.status != "succeeded":
        finish_run(store, run_id, "failed")
        raise run_failure(view, str(log))
    pull(store, run_id, folder)
    return view
