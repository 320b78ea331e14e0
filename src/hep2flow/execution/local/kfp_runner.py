"""Runs a pipeline on this machine with Kubeflow's own local runner, its tasks as processes or as containers."""

import builtins
import contextlib
import logging
import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol

import psutil

from hep2flow.distributed.ray_cluster import shared_cluster
from hep2flow.process import on_sigterm
from hep2flow.store.runs import RunView, show_run
from hep2flow.store.s3 import Store

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
            if child.pid not in self._terminated and _is_step(child):
                self._terminated.add(child.pid)
                child.terminate()


def _is_step(process: psutil.Process) -> bool:
    try:
        return EXECUTOR in process.cmdline()
    except psutil.Error:  # it has ended
        return False


def run_pipeline(store: Store, pipeline: Any, parameters: dict[str, Any], log: Path, steps: StepRunner) -> RunView:
    """Run a Kubeflow pipeline, changed to what can be run here; returns the finished run's view.

    The output of the runner and of the tasks is appended to the file ``log``.
    """
    from kfp import local

    steps.adapt(pipeline)
    log.parent.mkdir(parents=True, exist_ok=True)
    with (
        log.open("a", encoding="utf-8", buffering=1) as output,
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(output),
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
    """Pass SIGTERM on to the steps, those that the runner starts later included, instead of ending this process.

    Yields:
        Set once SIGTERM has come.
    """
    over = threading.Event()

    def end_steps() -> None:
        while not over.wait(BETWEEN_STEPS_SECONDS):
            steps.terminate()

    with on_sigterm(end_steps) as terminated:
        try:
            yield terminated
        finally:
            over.set()
