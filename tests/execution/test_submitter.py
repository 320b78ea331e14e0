"""The submitter against the dashboard of a real Ray: the log of a job, once and whole, however often it is begun."""

import asyncio
import os
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from hep2flow.execution.kubernetes import submitter
from hep2flow.execution.kubernetes.submitter import submit

TOKEN = "test-token-of-32-characters-or-so"


@pytest.fixture(scope="module")
def dashboard() -> Iterator[str]:
    """Address of the dashboard of a Ray cluster that requires a token, as with KubeRay's authOptions."""
    # Ray's agent has one port for all clusters of a machine, unless it is told otherwise: jobs would wait for ever.
    ray = str(Path(sys.executable).with_name("ray"))
    ports = [f"--{name}=0" for name in ("port", "dashboard-port", "dashboard-agent-listen-port")]
    with (
        tempfile.TemporaryDirectory(prefix="ray-") as folder,
        subprocess.Popen(
            [ray, "start", "--head", "--block", "--num-cpus=1", *ports, f"--temp-dir={folder}"],
            env={**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN, "RAY_USAGE_STATS_ENABLED": "0"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process,
    ):
        assert process.stdout is not None
        found = (re.search(r"RAY_API_SERVER_ADDRESS='(\S+)'", line) for line in process.stdout)
        yield next(match[1] for match in found if match)
        process.terminate()
        process.communicate(timeout=60)


def submitted(address: str, name: str, entrypoint: str) -> subprocess.CompletedProcess[str]:
    """As KubeRay starts it: the address and the id are in its environment."""
    variables = {"RAY_DASHBOARD_ADDRESS": address.removeprefix("http://"), "RAY_JOB_SUBMISSION_ID": name}
    variables["RAY_AUTH_TOKEN"] = TOKEN
    command = [sys.executable, "-X", "importtime", "-m", submitter.__name__, entrypoint]
    return subprocess.run(
        command, env={**os.environ, **variables}, capture_output=True, text=True, timeout=300, check=False
    )


def test_only_the_jobs_log_is_printed_and_a_second_submitter_submits_nothing(dashboard: str, tmp_path: Path) -> None:
    entrypoint = f"echo started >> {tmp_path / 'starts'}; for i in 1 2 3; do echo line $i; done; echo error >&2"
    first = submitted(dashboard, "job-1", entrypoint)
    assert first.returncode == 0, first.stderr
    lines = [
        line for line in first.stdout.splitlines() if "job_manager.py" not in line and "Running entrypoint" not in line
    ]
    assert lines == ["line 1", "line 2", "line 3", "error"]
    second = submitted(dashboard, "job-1", entrypoint)
    assert second.stdout == first.stdout
    assert (tmp_path / "starts").read_text().splitlines() == ["started"]
    imported = re.findall(r"\| +(ray|torch|pandas|boto3|hep2flow\.recipe)$", first.stderr, re.MULTILINE)
    assert imported == [], "every import is time in which GPUs wait"


def test_a_job_that_fails_is_followed_to_its_end_too(dashboard: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Its outcome is KubeRay's to judge: a submitter that failed as well would be begun again."""
    assert asyncio.run(submit(dashboard, "job-2", "echo before; exit 3", TOKEN)) == "FAILED"
    assert "\nbefore\n" in capsys.readouterr().out


def test_a_wrong_token_is_no_outage(dashboard: str) -> None:
    with pytest.raises(aiohttp.ClientResponseError, match=r"40[13]"):
        asyncio.run(submit(dashboard, "job-4", "true", "of-somebody-else"))


def test_a_head_that_never_answers_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submitter, "PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr(submitter, "PAUSE_SECONDS", 0.05)
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        with pytest.raises(TimeoutError, match=f"{address} did not answer"):
            asyncio.run(submit(address, "job-3", "true"))
