"""The Ray cluster of a stage: an existing one, or a local one, started once per run and shared by its steps."""

import importlib.util
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from hep2flow.errors import UserError
from hep2flow.process import in_background

ADDRESS_FILE = "HEP2FLOW_RAY_ADDRESS_FILE"
REQUESTED = "requested"  # a file beside that one, once a process needs the cluster
START_SECONDS = 120
STOP_SECONDS = 20
POLL_SECONDS = 0.1
CONNECT_SECONDS = 5
CONNECT_ATTEMPTS = 3
OBJECT_STORE_BYTES = 256 * 2**20  # small: cells travel through S3

# Ray's settings for a quiet and quick start.
RAY_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # a process beside every training; a machine of one's own stays
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",  # a short training should not wait for the controller's next poll
}

_ray_refused: ContextVar[bool] = ContextVar("ray_refused", default=False)


class RayRequiredError(Exception):
    """A stage needs Ray inside :func:`without_ray`."""


@contextmanager
def without_ray() -> Iterator[None]:
    """In the block, a stage that needs Ray because its result is not cached raises RayRequiredError instead."""
    token = _ray_refused.set(True)
    try:
        yield
    finally:
        _ray_refused.reset(token)


@contextmanager
def shared_cluster() -> Iterator[None]:
    """Provide a local cluster to the processes started in the block, started when the first of them needs it.

    Its process ends with this one, however this one ends: it reads from a pipe that closes then.
    """
    if os.environ.get("RAY_ADDRESS"):
        yield
        return
    os.environ.update({name: value for name, value in RAY_ENVIRONMENT.items() if name not in os.environ})
    with tempfile.TemporaryDirectory(prefix="hep2flow-ray-") as folder:
        address = Path(folder) / "address"
        os.environ[ADDRESS_FILE] = str(address)
        try:
            with in_background(partial(_supervise_head, address), "ray-head"):
                yield
        finally:
            del os.environ[ADDRESS_FILE]


def _supervise_head(address: Path, stop: threading.Event) -> None:
    """Start the cluster's process when it is requested, and end it with the run."""
    while not address.with_name(REQUESTED).exists():
        if stop.wait(POLL_SECONDS):
            return
    command = [sys.executable, "-m", "hep2flow.distributed.ray_cluster", str(address)]
    with (address.with_name("head.log")).open("wb") as log:
        # A session of its own: Ctrl-C is for the run, which then ends its cluster itself.
        head = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True)
    stop.wait()
    assert head.stdin is not None
    head.stdin.close()
    try:
        head.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        head.kill()


def serve_cluster(address: Path) -> None:
    """Serve a local cluster, whose address the file gets once it is up, until this process's standard input closes."""
    import ray

    quiet = {"include_dashboard": False, "log_to_driver": False}
    context = ray.init(address="local", object_store_memory=OBJECT_STORE_BYTES, **quiet)
    temporary = address.with_suffix(".tmp")
    temporary.write_text(context.address_info["gcs_address"])
    temporary.replace(address)
    sys.stdin.buffer.read()
    ray.shutdown()


def prestart_cluster() -> None:
    """Let the run's shared cluster, if there is one, start in the background: trainings will follow."""
    if ADDRESS_FILE in os.environ:
        Path(os.environ[ADDRESS_FILE]).with_name(REQUESTED).touch()


def ray_data_available() -> bool:
    """Whether Ray is installed and an existing cluster is reachable other than through Ray's client (no Ray Data there)."""
    address = os.environ.get("RAY_ADDRESS", "ray://")
    return not address.startswith("ray://") and importlib.util.find_spec("ray") is not None


@contextmanager
def connected() -> Iterator[None]:
    """Connect to ``RAY_ADDRESS``, to the run's shared cluster, or to a local one that ends with the block.

    Inside it standard output, on which Ray reports, goes to standard error: the first is for a stage's result.

    Raises:
        RayRequiredError: Inside :func:`without_ray`.
        UserError: The cluster cannot be reached.
    """
    if _ray_refused.get():
        raise RayRequiredError
    with redirect_stdout(sys.stderr), ExitStack() as stack:
        if "ray" in sys.modules and sys.modules["ray"].is_initialized():
            yield
            return
        if not os.environ.get("RAY_ADDRESS"):
            if ADDRESS_FILE not in os.environ:
                stack.enter_context(shared_cluster())
            prestart_cluster()
        # These imports take seconds, in which the cluster starts.
        import ray
        import ray.train.torch

        address = os.environ.get("RAY_ADDRESS") or _shared_address()
        try:
            check_reachable(address)
            for remaining in reversed(range(CONNECT_ATTEMPTS)):
                try:
                    ray.init(address=address, log_to_driver=False, logging_level="ERROR")
                    break
                except ConnectionAbortedError:  # Ray's server for clients at times fails to start its own process
                    if not remaining:
                        raise
        except (OSError, RuntimeError, ValueError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
            fix = "check --address or RAY_ADDRESS, or leave both out to run here"
            raise UserError(f"Ray at {address} cannot be reached ({reason}); {fix}") from error
        stack.callback(ray.shutdown)
        yield


def check_reachable(address: str) -> None:
    """Connect once to a cluster's port: Ray itself would try for minutes.

    Raises:
        OSError: Nobody answers there.
        ValueError: It is no address.
    """
    if address in ("auto", "local"):
        return
    place = urlsplit(address if "//" in address else f"//{address}")
    if not place.hostname or not place.port:
        raise ValueError("write auto, HOST:PORT or ray://HOST:PORT")
    socket.create_connection((place.hostname, place.port), CONNECT_SECONDS).close()


def _shared_address() -> str:
    """Address of the run's shared cluster, once it is up."""
    path, deadline = Path(os.environ[ADDRESS_FILE]), time.monotonic() + START_SECONDS
    while not path.exists():
        if time.monotonic() > deadline:
            log = path.with_name("head.log")
            last = log.read_text(errors="replace").strip().splitlines()[-1:] if log.exists() else []
            raise UserError(f"the local Ray did not start within {START_SECONDS} s: {' '.join(last) or 'no message'}")
        time.sleep(POLL_SECONDS)
    return path.read_text()


if __name__ == "__main__":
    serve_cluster(Path(sys.argv[1]))
