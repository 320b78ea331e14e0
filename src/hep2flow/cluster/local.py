"""The pipeline on this machine, through Kubeflow's own local runner: each task a process of this Python."""

from __future__ import annotations

import builtins
import contextlib
import logging
import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import psutil

from hep2flow.store.runs import RunView, show_run
from hep2flow.store.s3 import Store
from hep2flow.termination import on_sigterm

EXECUTOR = "kfp.dsl.executor_main"
BETWEEN_STEPS_SECONDS = 0.5


def run_here(store: Store, name: str, parameters: dict[str, Any], log: Path) -> RunView:
    """Run a pipeline of :mod:`hep2flow.pipelines` with these parameters; returns the finished run's view.

    log: what the runner and the tasks print, appended
    """
    from kfp import local

    from hep2flow.distributed.cluster import shared_cluster

    log.parent.mkdir(parents=True, exist_ok=True)
    with (
        log.open("a", encoding="utf-8", buffering=1) as output,
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(output),
        warnings.catch_warnings(),
        tempfile.TemporaryDirectory(prefix="hep2flow-kfp-") as root,
        shared_cluster(),
    ):
        # The runner warns that our images do not contain the word "python": it does not use them.
        warnings.simplefilter("ignore", RuntimeWarning)
        logging.captureWarnings(True)
        local.init(local.SubprocessRunner(use_venv=False), pipeline_root=root, raise_on_error=False)
        plain_print = builtins.print
        try:
            getattr(import_module(f"hep2flow.pipelines.{name}"), name)(**parameters)
        finally:
            # The runner indents by replacing print, and with two tasks at once does not put it back.
            builtins.print = plain_print
    return show_run(store, parameters["run_id"])


@contextmanager
def ended_with_its_steps() -> Iterator[threading.Event]:
    """Inside the block SIGTERM is passed on to the steps, those that the runner still starts included, and not obeyed.

    Yields what is set then.
    """
    over = threading.Event()

    def end_steps() -> None:
        told: set[int] = set()
        while not over.wait(BETWEEN_STEPS_SECONDS):
            for child in psutil.Process().children(recursive=True):
                if child.pid not in told and _is_step(child):
                    told.add(child.pid)
                    child.terminate()

    with on_sigterm(end_steps) as terminated:
        try:
            yield terminated
        finally:
            over.set()


def _is_step(process: psutil.Process) -> bool:
    try:
        return EXECUTOR in process.cmdline()
    except psutil.Error:  # gone, or going
        return False
