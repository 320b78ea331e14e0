"""A pipeline's tasks as processes of this Python."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil

from hep2flow.distributed.ray_cluster import shared_cluster

EXECUTOR = "kfp.dsl.executor_main"


class Processes:
    """They share one Ray cluster, and see all that this process sees."""

    def __init__(self) -> None:
        self._told: set[int] = set()

    def fit(self, pipeline: Any) -> None:
        """Nothing to do: a process has no image."""

    @contextmanager
    def running(self) -> Iterator[Any]:
        """Kubeflow's runner, and the cluster."""
        from kfp import local

        with shared_cluster():
            yield local.SubprocessRunner(use_venv=False)

    def terminate(self) -> None:
        """SIGTERM to each step that had none."""
        for child in psutil.Process().children(recursive=True):
            if child.pid not in self._told and _is_step(child):
                self._told.add(child.pid)
                child.terminate()


def _is_step(process: psutil.Process) -> bool:
    try:
        return EXECUTOR in process.cmdline()
    except psutil.Error:  # gone, or going
        return False
