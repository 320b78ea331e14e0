"""The Ray cluster a stage runs on: one that exists, or a local one, started once for a run and shared by its steps."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray

from hep2flow.errors import UserError

ADDRESS_FILE = "HEP2FLOW_RAY_ADDRESS_FILE"
START_SECONDS = 120

# Ray's own housekeeping that a library user did not ask for: usage reports, log noise.
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # The controller polls its workers; a short training should not wait for the next look.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
}


@contextmanager
def shared_cluster() -> Iterator[None]:
    """A local cluster for the child processes started inside the block; returns at once, the cluster comes up beside.

    Its process ends with this one, however this one ends: it watches a pipe that closes then.
    """
    if os.environ.get("RAY_ADDRESS"):
        yield
        return
    with tempfile.TemporaryDirectory(prefix="hep2flow-ray-") as folder:
        address = Path(folder) / "address"
        _prepare_local()
        with (Path(folder) / "head.log").open("wb") as log:
            head = subprocess.Popen(
                [sys.executable, "-m", "hep2flow.distributed.head", str(address)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env={**os.environ, **QUIET},
                start_new_session=True,  # Ctrl-C is for the run, which then ends its cluster itself
            )
        os.environ[ADDRESS_FILE] = str(address)
        try:
            yield
        finally:
            del os.environ[ADDRESS_FILE]
            assert head.stdin is not None
            head.stdin.close()
            try:
                head.wait(20)
            except subprocess.TimeoutExpired:
                head.kill()


@contextmanager
def connected() -> Iterator[None]:
    """Connect to ``RAY_ADDRESS``, to the run's shared cluster, or start a local one that ends with the block."""
    if ray.is_initialized():
        yield
        return
    os.environ.update({name: value for name, value in QUIET.items() if name not in os.environ})
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "include_dashboard": False}
    address = os.environ.get("RAY_ADDRESS") or _shared_address()
    try:
        if address:
            options.pop("include_dashboard")
            ray.init(address=address, **options)
        else:
            _prepare_local()
            ray.init(address="local", **local_options(), **options)
    except (ConnectionError, TimeoutError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"Ray at {address or 'this machine'} cannot be reached ({reason}); check RAY_ADDRESS, or unset it to run here"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _prepare_local() -> None:
    """Settings of the local cluster about to start, for it and for those who connect to it.

    A token, because Ray listens on all interfaces and runs the code it is sent; no watcher for preempted nodes, a
    process of its own beside every training, because this machine is not preempted.
    """
    os.environ.update(
        RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32), RAY_TRAIN_ENABLE_PREEMPTION_WATCHER="0"
    )


def local_options() -> dict[str, Any]:
    """What a local cluster gets: a small object store, because cells travel through S3."""
    return {"object_store_memory": 256 * 2**20}


def _shared_address() -> str | None:
    """Address of the run's shared cluster, once it is up; None where no run started one."""
    name = os.environ.get(ADDRESS_FILE)
    if name is None:
        return None
    deadline = time.monotonic() + START_SECONDS
    while not (path := Path(name)).exists():
        if time.monotonic() > deadline:
            log = path.with_name("head.log")
            last = log.read_text(errors="replace").strip().splitlines()[-1:] if log.exists() else []
            raise UserError(f"the local Ray did not come up within {START_SECONDS} s: {' '.join(last) or 'no message'}")
        time.sleep(0.2)
    return path.read_text()
