"""A Docker engine with the images in it, as `make test-images` leaves it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hep2flow.components import images
from hep2flow.sources.synthetic import write_twin

from .lists import ROOT

NAMES = {"step": images.STEP, "ray": images.RAY}


@pytest.fixture(scope="session")
def engine() -> Iterator[Any]:
    """The engine's client."""
    docker = pytest.importorskip("docker")
    client = docker.from_env(timeout=600)
    yield client
    client.close()


@pytest.fixture(scope="session", params=NAMES)
def image(request: pytest.FixtureRequest, engine: Any) -> Any:
    """Each of the two."""
    return built(engine, request.param)


@pytest.fixture(scope="session")
def step_image(engine: Any) -> Any:
    """The one without torch."""
    return built(engine, "step")


@pytest.fixture(scope="session")
def both(engine: Any) -> None:
    """What needs a run inside them."""
    for name in NAMES:
        built(engine, name)


def built(engine: Any, name: str) -> Any:
    """The image; one that was not built, or of another commit, is not tested."""
    docker = pytest.importorskip("docker")
    try:
        image = engine.images.get(NAMES[name])
    except docker.errors.ImageNotFound:
        pytest.skip(f"{NAMES[name]} is not in this engine: `make image-{name}` builds it")
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    if (made_of := image.labels["org.opencontainers.image.revision"]) != commit.strip():
        pytest.skip(f"{NAMES[name]} was built of {made_of[:8]}: `make image-{name}` builds it anew")
    return image


@pytest.fixture(scope="session")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few hundred cells of 12 specimens."""
    folder = tmp_path_factory.mktemp("source") / "twin"
    write_twin(folder, seed=0, specimens=12)
    return folder


def inside(engine: Any, image: Any, *command: str, **more: Any) -> str:
    """What a command prints in a container that may do as little as the strictest cluster lets it."""
    told = engine.containers.run(
        image,
        list(command),
        remove=True,
        read_only=more.pop("read_only", True),
        tmpfs=more.pop("tmpfs", {"/tmp": ""}),  # noqa: S108 - the container's
        cap_drop=["ALL"],
        security_opt=["no-new-privileges"],
        **more,
    )
    return str(told.decode())


def as_caller() -> str:
    """Of whom the files of a test are."""
    return f"{os.getuid()}:{os.getgid()}"
