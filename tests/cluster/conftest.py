"""What several tests of runs on a cluster share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hep2flow.cluster import follow, waiting
from tests.cluster.kubeflow_double import Double, serving


@pytest.fixture
def kubeflow(monkeypatch: pytest.MonkeyPatch) -> Iterator[Double]:
    """An HTTP double of Kubeflow Pipelines, at which whoever waits looks without pauses."""
    monkeypatch.setattr(waiting, "PAUSE_SECONDS", 0.02)
    monkeypatch.setattr(follow, "POLL_SECONDS", 0.1)
    with serving() as double:
        yield double
