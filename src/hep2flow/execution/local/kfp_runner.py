"""The pipeline on this machine, through Kubeflow's own local runner."""

from __future__ import annotations

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

from hep2flow.process import on_sigterm
from hep2flow.store.runs import RunView, show_run
from hep2flow.store.s3 import Store

BETWEEN_STEPS_SECONDS = 0.5


class Steps(Protocol):
    """What the tasks of a pipeline are on this machine."""

    def fit(self, pipeline: Any) -> None:
        """Change a Kubeflow pipeline to what can be run here."""

    def running(self) -> AbstractContextManager[Any]:
        """Kubeflow's runner for them, and what they need beside it."""

    def terminate(self) -> None:
        """Ask those that were not asked yet to save what they did, and to end."""


def run_here(store: Store, pipeline: Any, parameters: dict[str, Any], log: Path, steps: Steps) -> RunView:
    """Run a Kubeflow pipeline with these parameters; returns the finished run's view.

    Args:
        store: Where the run lies.
        pipeline: Changed to what can be run here.
        parameters: Of the pipeline.
        log: What the runner and the tasks print, appended.
        steps: What the pipeline's tasks are here.
    """
    from kfp import local

    steps.fit(pipeline)
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
        local.init(runner, pipeline_root=root, raise_on_error=False)
        plain_print = builtins.print
        try:
            pipeline(**parameters)
        finally:
            # The runner indents by replacing print, and with two tasks at once does not put it back.
            builtins.print = plain_print
    return show_run(store, parameters["run_id"])


@contextmanager
def ended_with(steps: Steps) -> Iterator[threading.Event]:
    """Inside the block SIGTERM is passed on to the steps, those that the runner still starts included, and not obeyed.

    Yields what is set then.
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
