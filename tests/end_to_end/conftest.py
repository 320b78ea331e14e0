"""One small synthetic twin, and an object store of its own, for all end-to-end tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hep2flow.sources.synthetic import write_twin
from tests.images.lists import components, image_of, lacking

CONFINED = Path(__file__).parents[1] / "images" / "confined"
Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 specimens in the ICPR 2012 contest layout."""
    folder = tmp_path_factory.mktemp("source") / "twin"
    write_twin(folder, seed=0, specimens=12)
    return folder


@pytest.fixture(scope="session")
def command(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Command]:
    """Runs the real command line in a process of its own, in a working folder and a store of its own.

    A run's steps find the packages that their images have, and no others.
    """
    work = tmp_path_factory.mktemp("work")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "HEP2FLOW_"))}
    environment |= {"HEP2FLOW_HOME": str(work / "home"), "COLUMNS": "200"}
    modules = {image: lacking(image) for image in ("step", "ray")}
    environment["LACKING"] = json.dumps({name: modules[image_of(name)] for name in components()})
    environment["PYTHONPATH"] = str(CONFINED)

    def run(*arguments: str, timeout: float = 500) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "hep2flow.cli", *arguments],
            cwd=work,
            env=environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    yield run
    run("storage", "down")
