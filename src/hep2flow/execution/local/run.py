"""One run on this machine with Kubeflow's own local runner, its tasks as processes or as containers."""

from __future__ import annotations

import builtins
import logging
import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import psutil

from hep2flow.distributed.ray_cluster import shared_cluster
from hep2flow.errors import UserError
from hep2flow.execution.run_request import RunRequest, pipeline_arguments
from hep2flow.execution.watch_run import run_failure, show_run_progress
from hep2flow.process import TerminatedError, on_sigterm
from hep2flow.stages.begin import begin
from hep2flow.stages.initial_weights import with_stored_weights
from hep2flow.store.outage import log_to_stderr
from hep2flow.store.pull import pull
from hep2flow.store.runs import RunView, finish_run, show_run
from hep2flow.store.s3 import Store
from hep2flow.store.stage_recorder import record_interruption

if TYPE_CHECKING:
    from hep2flow.execution.local.docker_runner import Images

BETWEEN_STEPS_SECONDS = 0.5
EXECUTOR = "kfp.dsl.executor_main"


class StepRunner(Protocol):
    """How the tasks of a pipeline run on this machine."""

    def adapt(self, pipeline: Any) -> None:
        """Change a Kubeflow pipeline to what can be run here."""

    def running(self) -> AbstractContextManager[Any]:
        """Kubeflow's runner for the tasks, and what they need beside it."""

    def terminate(self) -> None:
        """Send SIGTERM to each task that had none: it saves its state and ends."""


class SubprocessSteps:
    """Pipeline tasks as processes of this Python that share one Ray cluster and this process's environment."""

    def __init__(self) -> None:
        self._terminated: set[int] = set()

    def adapt(self, pipeline: Any) -> None:
        """Change nothing: a process has no image."""

    @contextmanager
    def running(self) -> Iterator[Any]:
        """Kubeflow's runner, and the Ray cluster."""
        from kfp import local

        with shared_cluster():
            yield local.SubprocessRunner(use_venv=False)

    def terminate(self) -> None:
        """Send SIGTERM to each step that had none."""
        for child in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):  # it has ended
                if child.pid not in self._terminated and EXECUTOR in child.cmdline():
                    self._terminated.add(child.pid)
                    child.terminate()


def run_pipeline(store: Store, pipeline: Any, parameters: dict[str, Any], log: Path, steps: StepRunner) -> RunView:
    """Run a Kubeflow pipeline, changed to what can be run here; returns the finished run's view.

    The output of the runner and of the tasks is appended to the file ``log``.
    """
    from kfp import local

    steps.adapt(pipeline)
    log.parent.mkdir(parents=True, exist_ok=True)
    with (
        log.open("a", encoding="utf-8", buffering=1) as output,
        redirect_stdout(output),
        redirect_stderr(output),
        warnings.catch_warnings(),
        tempfile.TemporaryDirectory(prefix="hep2flow-kfp-") as root,
        steps.running() as runner,
    ):
        # The runner warns that our images do not contain the word "python": it does not use them.
        warnings.simplefilter("ignore", RuntimeWarning)
        logging.captureWarnings(True)
        # Not an s3:// root: KFP's subprocess runner would make a folder named "s3:".
        local.init(runner, pipeline_root=root, raise_on_error=False)
        original_print = builtins.print
        try:
            pipeline(**parameters)
        finally:
            # The runner indents by replacing print, and with two tasks at once does not put it back.
            builtins.print = original_print
    return show_run(store, parameters["run_id"])


@contextmanager
def forward_sigterm(steps: StepRunner) -> Iterator[threading.Event]:
    """Pass SIGTERM on to the steps, later ones included, instead of ending this process; the event is set then."""
    over = threading.Event()

    def end_steps() -> None:
        while not over.wait(BETWEEN_STEPS_SECONDS):
            steps.terminate()

    with on_sigterm(end_steps) as terminated:
        try:
            yield terminated
        finally:
            over.set()


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
