"""The Ray cluster a stage runs on: one that exists, or a local one, started once for a run and shared by its steps."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from pathlib import Path
from urllib.parse import urlsplit

from hep2flow.errors import UserError

ADDRESS_FILE = "HEP2FLOW_RAY_ADDRESS_FILE"
START_SECONDS = 120
STOP_SECONDS = 20
POLL_SECONDS = 0.1
CONNECT_SECONDS = 5
CONNECT_ATTEMPTS = 3

# Ray's own housekeeping that a user did not ask for: usage reports, log noise, and on a machine of one's own a watcher
# for preempted nodes, a process beside every training.
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # The controller polls its workers; a short training should not wait for the next look.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
}


_elsewhere: ContextVar[bool] = ContextVar("elsewhere", default=False)


class RayWantedError(Exception):
    """A stage came to where it needs Ray, inside :func:`without_ray`."""


@contextmanager
def without_ray() -> Iterator[None]:
    """Inside the block a stage that needs Ray, because its result is not there yet, raises RayWantedError instead."""
    token = _elsewhere.set(True)
    try:
        yield
    finally:
        _elsewhere.reset(token)


@contextmanager
def shared_cluster() -> Iterator[None]:
    """A local cluster for the processes started inside the block: started when the first of them wants it.

    Its process ends with this one, however this one ends: it watches a pipe that closes then.
    """
    if os.environ.get("RAY_ADDRESS"):
        yield
        return
    os.environ.update({name: value for name, value in QUIET.items() if name not in os.environ})
    with tempfile.TemporaryDirectory(prefix="hep2flow-ray-") as folder:
        address, over = Path(folder) / "address", threading.Event()
        os.environ[ADDRESS_FILE] = str(address)
        keeper = threading.Thread(target=_keep_head, args=(address, over), name="ray-head", daemon=True)
        keeper.start()
        try:
            yield
        finally:
            del os.environ[ADDRESS_FILE]
            over.set()
            keeper.join()


def _keep_head(address: Path, over: threading.Event) -> None:
    """Start the cluster's process once it is wanted, and end it when the run is over."""
    while not _wanted(address).exists():
        if over.wait(POLL_SECONDS):
            return
    with (address.with_name("head.log")).open("wb") as log:
        head = subprocess.Popen(
            [sys.executable, "-m", "hep2flow.distributed.ray_head", str(address)],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C is for the run, which then ends its cluster itself
        )
    over.wait()
    assert head.stdin is not None
    head.stdin.close()
    try:
        head.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        head.kill()


def _wanted(address: Path) -> Path:
    return address.with_name("wanted")


def soon_wanted() -> None:
    """There are new cells, so trainings will follow: the run's shared cluster, where there is one, starts meanwhile."""
    if ADDRESS_FILE in os.environ:
        _wanted(Path(os.environ[ADDRESS_FILE])).touch()


def on_a_cluster() -> bool:
    """Whether Ray Data can work on a cluster that exists: not through Ray's client, nor in an image without Ray."""
    address = os.environ.get("RAY_ADDRESS", "ray://")
    return not address.startswith("ray://") and importlib.util.find_spec("ray") is not None


@contextmanager
def connected() -> Iterator[None]:
    """Connect to ``RAY_ADDRESS``, to the run's shared cluster, or to a local one that ends with the block."""
    if _elsewhere.get():
        raise RayWantedError
    if "ray" in sys.modules and sys.modules["ray"].is_initialized():
        yield
        return
    with ExitStack() as stack:
        if not os.environ.get("RAY_ADDRESS"):
            if ADDRESS_FILE not in os.environ:
                stack.enter_context(shared_cluster())
            soon_wanted()
        # Seconds in which the cluster starts.
        import ray
        import ray.train.torch

        address = os.environ.get("RAY_ADDRESS") or _shared_address()
        try:
            knock(address)
            for left in reversed(range(CONNECT_ATTEMPTS)):
                try:
                    ray.init(address=address, log_to_driver=False, logging_level="ERROR")
                    break
                except ConnectionAbortedError:  # Ray's server for clients at times fails to start its own process
                    if not left:
                        raise
        except (OSError, RuntimeError, ValueError) as error:
            lines = str(error).strip().splitlines()
            reason = lines[-1] if lines else type(error).__name__
            raise UserError(
                f"Ray at {address} cannot be reached ({reason}); "
                "check --address or RAY_ADDRESS, or leave both out to run here"
            ) from error
        stack.callback(ray.shutdown)
        yield


def knock(address: str) -> None:
    """Ray itself tries for minutes where nobody answers; OSError at once, and ValueError for what is no address."""
    if address in ("auto", "local"):
        return
    place = urlsplit(address if "//" in address else f"//{address}")
    if not place.hostname or not place.port:
        raise ValueError("write auto, HOST:PORT or ray://HOST:PORT")
    socket.create_connection((place.hostname, place.port), CONNECT_SECONDS).close()


def _shared_address() -> str:
    """Address of the run's shared cluster, once it is up."""
    path = Path(os.environ[ADDRESS_FILE])
    deadline = time.monotonic() + START_SECONDS
    while not path.exists():
        if time.monotonic() > deadline:
            log = path.with_name("head.log")
            last = log.read_text(errors="replace").strip().splitlines()[-1:] if log.exists() else []
            raise UserError(f"the local Ray did not come up within {START_SECONDS} s: {' '.join(last) or 'no message'}")
        time.sleep(POLL_SECONDS)
    return path.read_text()
