"""The cluster with the manifests applied, and a folder of its own in the cluster's store."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator

import pytest

from hep2flow.store.s3 import Store
from tests.on_cluster.forward import credentials, reached
from tests.on_cluster.kubectl import kubectl
from tests.on_cluster.overlay import Overlay, read_overlay


def pytest_addoption(parser: pytest.Parser) -> None:
    for name in ("overlay", "images", "namespace"):
        parser.addoption(f"--{name}", default=None)


def pytest_ignore_collect(config: pytest.Config) -> bool | None:
    """These tests are `make test-cluster`'s alone."""
    return True if config.getoption("overlay", None) is None else None


@pytest.fixture(scope="session")
def overlay(pytestconfig: pytest.Config) -> Overlay:
    """Applied, after the API server has said that it would take all of it; it is left there."""
    given = [pytestconfig.getoption(name) for name in ("overlay", "images", "namespace")]
    chosen = read_overlay(*given)
    kubectl("apply", "-k", str(chosen.folder), "--dry-run=server")
    kubectl("apply", "-k", str(chosen.folder))
    return chosen


@pytest.fixture(scope="session")
def store(_own_environment: None, overlay: Overlay) -> Iterator[Store]:
    """A folder of its own in the cluster's store, which is deleted in the end."""
    folder = f"test-cluster-{secrets.token_hex(4)}"
    os.environ.update(credentials(overlay.options, overlay.namespace))
    with reached(overlay.store, overlay.namespace) as address:
        yield Store(address.model_copy(update={"prefix": f"{address.prefix}/{folder}".strip("/")}))
        Store(address).delete_folder(folder)
