"""What several tests of runs on a cluster share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hep2flow.execution import watch_run
from hep2flow.execution.kubeflow import wait_for_run
from tests.execution.kubeflow_double import Double, serving


@pytest.fixture
def kubeflow(monkeypatch: pytest.MonkeyPatch) -> Iterator[Double]:
    """An HTTP double of Kubeflow Pipelines, at which whoever waits looks without pauses."""
    monkeypatch.setattr(wait_for_run, "PAUSE_SECONDS", 0.02)
    monkeypatch.setattr(watch_run, "POLL_SECONDS", 0.1)
    with serving() as double:
        yield double
