"""One run on this machine from its request to its results: refuse early, show it as it happens, leave the results."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from hep2flow.errors import UserError
from hep2flow.execution.local.kfp_runner import Steps, ended_with, run_here
from hep2flow.execution.local.subprocess_runner import Processes
from hep2flow.execution.progress_display import followed
from hep2flow.execution.run_errors import failure
from hep2flow.execution.run_request import Request, arguments_of
from hep2flow.process import TerminatedError
from hep2flow.stages.begin import begin
from hep2flow.stages.initial_weights import shippable
from hep2flow.store.pull import pull
from hep2flow.store.runs import RunView, finish_run, interrupted
from hep2flow.store.s3 import Store

if TYPE_CHECKING:
    from hep2flow.execution.local.docker_runner import Images


def launch(store: Store, run_id: str, request: Request, folder: Path, images: Images | None = None) -> RunView:
    """Run the pipeline here and leave report, metrics and checkpoints in ``folder``.

    images: of which the steps are containers; None for steps that are processes
    Raises UserError for what the user can mend, as the failed stage told it, and RunFailedError for what is our defect.
    SIGTERM is passed on to the steps; once they have saved what they did, TerminatedError is raised.
    """
    source = request.source
    if not source.startswith("s3://"):
        if not Path(source).exists():
            raise UserError(f"--source {source}: there is no such file or folder")
        source = str(Path(source).resolve())
    steps = _steps(source, images)
    recipes = [shippable(store, recipe) for recipe in request.recipes]
    record = begin(store, run_id, request.asked(source), recipes)
    print(f"run {run_id}: {', '.join(recipe.title for recipe in recipes)}", file=sys.stderr)
    # Here, because Kubeflow takes a second to import, and what is refused is refused before.
    from hep2flow.pipelines.side_by_side import side_by_side
    from hep2flow.pipelines.unrolled import unrolled

    pipeline = unrolled(request.pipeline, record.models) if request.sweep else side_by_side(record.models)
    arguments = arguments_of(request, source, run_id, store.address)
    log = folder / "log.txt"
    with interrupted(store, run_id), followed(store, run_id), ended_with(steps) as terminated:
        view = run_here(store, pipeline, arguments, log, steps)
        if terminated.is_set():
            print(
                f"asked to end by SIGTERM; the same command with --run-id {run_id} goes on from here", file=sys.stderr
            )
            raise TerminatedError
    if view.status != "succeeded":
        finish_run(store, run_id, "failed")
        raise failure(view, str(log))
    pull(store, run_id, folder)
    return view


def _steps(source: str, images: Images | None) -> Steps:
    if images is None:
        return Processes()
    # Here, because only this needs what speaks to the engine.
    from hep2flow.execution.local.docker_runner import Containers

    return Containers(images, None if source.startswith("s3://") else Path(source))
