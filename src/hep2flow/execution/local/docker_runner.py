"""Pipeline tasks as Docker containers on this machine, of the images that they have on a cluster."""

import codecs
import os
import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3

from hep2flow.components import images
from hep2flow.errors import UserError
from hep2flow.process import handling

OPTION = "--runner docker"
LABEL = "hep2flow/step"
SCRATCH = "/tmp"  # noqa: S108 - a volume of the container's own
SHARED_MEMORY = "2g"  # Ray's objects, and the batches of a training's loaders
# Settings that a step on this machine would find in its environment; not the folders, which no container has.
HUB_VARIABLES = ("HF_ENDPOINT", "HF_HUB_OFFLINE", "HF_TOKEN")
FORWARDED_VARIABLES = (*HUB_VARIABLES, "MLFLOW_EXPERIMENT_NAME", "MLFLOW_TRACKING_URI", "RAY_ADDRESS")
# KFP starts its executor as the child of a shell, which does not forward SIGTERM; exec replaces the shell.
CHILD, REPLACED = "_KFP_RUNTIME=true python3", "exec env _KFP_RUNTIME=true python3"


@dataclass(frozen=True)
class Images:
    """Image names."""

    step: str = images.STEP  # for tasks that need no torch
    ray: str = images.RAY  # for trainings, sweeps and evaluations


class DockerSteps:
    """Containers of this user, each with its own Ray, the host's network, and one place to write.

    ``source`` is the only part of this machine's disk that they see, read-only; None where it is in the store.

    Raises:
        UserError: There is no Docker engine, or no such image.
    """

    def __init__(self, chosen: Images, source: Path | None) -> None:
        address = os.environ.get("RAY_ADDRESS")
        if address and not address.startswith("ray://"):
            raise UserError(f"{OPTION}: inside a container Ray is reached as ray://HOST:PORT, not {address}")
        self._images, self._source = chosen, source
        self._engine = _engine()
        from docker.errors import ImageNotFound

        for image in (chosen.step, chosen.ray):
            try:
                self._engine.images.get(image)
            except ImageNotFound as error:
                # Not pulled: a name without a registry would be looked up at Docker's, where anybody may have taken it.
                fix = "make it with `make images`, or `docker pull` one and name it with --step-image and --ray-image"
                raise UserError(f"{OPTION}: the engine has no image {image}; {fix}") from error
        self._containers: dict[str, Any] = {}
        self._terminated: set[str] = set()

    def adapt(self, pipeline: Any) -> None:
        """Set the images, and let SIGTERM reach the task itself."""
        names = {images.STEP: self._images.step, images.RAY: self._images.ray}
        executors = pipeline.pipeline_spec.deployment_spec["executors"].values()
        for container in (executor["container"] for executor in executors if "container" in executor):
            container["image"], script = names[container["image"]], container["command"][2]
            assert CHILD in script, script
            container["command"][2] = script.replace(CHILD, REPLACED)

    @contextmanager
    def running(self) -> Iterator[Any]:
        """Kubeflow's runner."""
        from docker.types import DeviceRequest, Mount
        from kfp import local
        from kfp.local import docker_task_handler

        mounts = [Mount(SCRATCH, None)]
        if self._source is not None:
            mounts.append(Mount(str(self._source), str(self._source), type="bind", read_only=True))
        gpus = "nvidia" in self._engine.info()["Runtimes"]
        runner = local.DockerRunner(
            network_mode="host",  # where the embedded store is, on loopback
            environment=_environment(),
            mounts=mounts,
            user=f"{os.getuid()}:{os.getgid()}",  # whose the outputs are
            read_only=True,
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            shm_size=SHARED_MEMORY,
            working_dir=SCRATCH,
            labels=[LABEL],
            device_requests=[DeviceRequest(count=-1, capabilities=[["gpu"]])] if gpus else None,
        )
        # KFP's own function takes a container that the engine has already removed for a success, and leaves one running
        # when it is interrupted.
        original = docker_task_handler.run_docker_container
        docker_task_handler.run_docker_container = self._run
        try:
            with handling(signal.SIGINT, self._interrupt):
                yield runner
        finally:
            docker_task_handler.run_docker_container = original
            self._engine.close()

    def terminate(self) -> None:
        """Send SIGTERM to each container that had none."""
        names = self._containers.keys() - self._terminated
        self._terminated |= names
        self._signal("SIGTERM", names)

    def _run(self, client: Any, image: str, command: list[str], volumes: dict[str, Any], **arguments: Any) -> int:
        """Run a container and print its output; returns its exit code. KFP calls this from several threads."""
        container = client.containers.create(image, command, volumes=volumes, **arguments)
        try:
            container.start()
            self._containers[container.id] = container
            for text in codecs.iterdecode(container.logs(stream=True), "utf-8", "replace"):
                print(text, end="")
            return int(container.wait()["StatusCode"])
        finally:
            self._containers.pop(container.id, None)
            container.remove(v=True, force=True)

    def _interrupt(self, number: int, frame: Any) -> None:
        """Pass Ctrl-C on: it reaches the processes of a terminal, but no containers, and KFP waits for them."""
        # In a thread: the engine's client may be in the middle of a request.
        threading.Thread(target=self._signal, args=("SIGINT", self._containers), name="interrupt", daemon=True).start()
        raise KeyboardInterrupt

    def _signal(self, which: str, containers: Iterable[str]) -> None:
        from docker.errors import APIError

        for name in list(containers):
            with suppress(APIError):  # it has ended
                self._engine.api.kill(name, which)


def _engine() -> Any:
    try:
        import docker
    except ImportError as error:
        raise UserError(f"{OPTION}: needs the Python package docker; pip install 'hep2flow[docker]'") from error
    try:
        engine = docker.from_env()
        engine.ping()
    except docker.errors.DockerException as error:
        what = f"{OPTION}: no Docker engine answers ({error})"
        raise UserError(f"{what}; start one, or set DOCKER_HOST to its address") from error
    return engine


def _environment() -> dict[str, str]:
    """The store's credentials, from wherever this process has them, and a few settings. Holds the secret."""
    credentials = boto3.Session().get_credentials()
    assert credentials is not None, "the store has been opened with them"
    frozen = credentials.get_frozen_credentials()
    keys = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
    found = dict(zip(keys, (frozen.access_key, frozen.secret_key, frozen.token), strict=True))
    found |= {name: os.environ.get(name) for name in FORWARDED_VARIABLES}
    return {name: value for name, value in found.items() if value}
