"""Training on a Ray cluster that exists: found by itself, by its address, and through Ray's client."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hep2flow.distributed.ray_cluster import RAY_ENVIRONMENT, connected
from hep2flow.errors import UserError

from .test_interruptions import Laboratory


@pytest.fixture
def laboratory(tmp_path: Path, own_server: None) -> Laboratory:
    return Laboratory(tmp_path, 2, "resources.workers.min=1", "resources.workers.max=2")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def ports(laboratory: Laboratory) -> Iterator[tuple[int, int]]:
    """Of a cluster's head and of its server for clients; its workers inherit where the store is."""
    head, client = free_port(), free_port()
    command = [str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", "--num-cpus=2"]
    command += [f"--port={head}", f"--ray-client-server-port={client}", "--include-dashboard=false"]
    command += ["--object-store-memory=100000000", "--disable-usage-stats", "--node-ip-address=127.0.0.1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, **RAY_ENVIRONMENT}, text=True)
    assert process.stdout is not None
    assert any("Ray runtime started" in line for line in process.stdout)
    yield head, client
    process.terminate()
    process.communicate(timeout=60)


@pytest.mark.slow
def test_a_training_uses_the_cluster_that_is_named(laboratory: Laboratory, ports: tuple[int, int]) -> None:
    outcomes = []
    for address in ("auto", f"127.0.0.1:{ports[0]}", f"ray://127.0.0.1:{ports[1]}"):
        command = list(laboratory.command)
        laboratory.command += ["--address", address]
        result = laboratory.finish(laboratory.start())
        outcomes.append(laboratory.outcome(result))
        laboratory.forget(result)
        laboratory.command = command
    assert outcomes[1:] == outcomes[:1] * 2


@pytest.mark.parametrize("address", ["127.0.0.1:PORT", "ray://127.0.0.1:PORT", "nowhere"])
def test_a_cluster_that_is_not_there_is_told_at_once(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    named = address.replace("PORT", str(free_port()))
    monkeypatch.setenv("RAY_ADDRESS", named)
    with pytest.raises(UserError, match=f"Ray at {named} cannot be reached.*--address"), connected():
        pytest.fail("there is no such cluster")
