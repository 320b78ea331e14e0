"""Pipeline tasks as processes of this Python."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil

from hep2flow.distributed.ray_cluster import shared_cluster

EXECUTOR = "kfp.dsl.executor_main"


class SubprocessSteps:
    """Processes that share one Ray cluster and this process's environment."""

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
