"""The submitter against the dashboard of a real Ray: the log of a job, once and whole, however often it is begun."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest
import ray

from hep2flow.execution.kubernetes import submitter
from hep2flow.execution.kubernetes.submitter import submit

TOKEN = "test-token-of-32-characters-or-so"


@pytest.fixture(scope="module")
def dashboard() -> Iterator[str]:
    """Address of the dashboard of a Ray cluster that requires a token, as with KubeRay's authOptions."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("RAY_AUTH_MODE", "token")
        environment.setenv("RAY_AUTH_TOKEN", TOKEN)
        quiet = {"log_to_driver": False, "logging_level": "ERROR"}
        context = ray.init(num_cpus=1, include_dashboard=True, dashboard_port=0, **quiet)
        yield f"http://{context.dashboard_url}"
        ray.shutdown()


def submitted(address: str, name: str, entrypoint: str) -> subprocess.CompletedProcess[str]:
    """As KubeRay starts it: the address and the id are in its environment."""
    variables = {"RAY_DASHBOARD_ADDRESS": address.removeprefix("http://"), "RAY_JOB_SUBMISSION_ID": name}
    command = [sys.executable, "-X", "importtime", "-m", submitter.__name__, entrypoint]
    return subprocess.run(
        command, env={**os.environ, **variables}, capture_output=True, text=True, timeout=300, check=False
    )


def test_the_jobs_log_is_all_that_is_printed_and_a_second_submitter_submits_nothing(
    dashboard: str, tmp_path: Path
) -> None:
    entrypoint = f"echo started >> {tmp_path / 'starts'}; for i in 1 2 3; do echo line $i; done; echo error >&2"
    first = submitted(dashboard, "job-1", entrypoint)
    assert first.returncode == 0, first.stderr
    assert first.stdout.splitlines() == ["line 1", "line 2", "line 3", "error"]
    second = submitted(dashboard, "job-1", entrypoint)
    assert second.stdout == first.stdout
    assert (tmp_path / "starts").read_text().splitlines() == ["started"]
    imported = re.findall(r"\| +(ray|torch|pandas|boto3|hep2flow\.recipe)$", first.stderr, re.MULTILINE)
    assert imported == [], "every import is time in which GPUs wait"


def test_a_job_that_fails_is_followed_to_its_end_too(dashboard: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Its outcome is KubeRay's to judge: a submitter that failed as well would be begun again."""
    assert asyncio.run(submit(dashboard, "job-2", "echo before; exit 3", TOKEN)) == "FAILED"
    assert capsys.readouterr().out.splitlines()[0] == "before"


def test_a_wrong_token_is_no_outage(dashboard: str) -> None:
    with pytest.raises(aiohttp.ClientResponseError, match="40[13]"):
        asyncio.run(submit(dashboard, "job-4", "true", "of-somebody-else"))


def test_a_head_that_never_answers_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submitter, "PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr(submitter, "PAUSE_SECONDS", 0.05)
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        with pytest.raises(TimeoutError, match=f"{address} did not answer"):
            asyncio.run(submit(address, "job-3", "true"))
