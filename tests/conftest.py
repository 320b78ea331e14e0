"""What all tests share: an environment of their own, and a real embedded object store."""

from __future__ import annotations

import os
import secrets
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from hep2flow.store import embedded_server
from hep2flow.store.open_store import open_store
from hep2flow.store.s3 import Store

# Machines that run tests are busy: how long one example takes says nothing.
settings.register_profile("shared-machine", deadline=None)
settings.load_profile("shared-machine")

# A job in the background of a script, as continuous integration may be, ignores Ctrl-C; so would the commands under test.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _own_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Neither the developer's stores and credentials, nor the developer's data folder, are ever touched."""
    developer = dict(os.environ)
    for name in developer:
        if name.startswith(("AWS_", "HEP2FLOW_")) and name not in ("HEP2FLOW_I3A", "HEP2FLOW_CRDS"):
            del os.environ[name]
    os.environ.update(
        HEP2FLOW_HOME=str(tmp_path_factory.mktemp("home")),
        AWS_EC2_METADATA_DISABLED="true",
        AWS_CONFIG_FILE=os.devnull,
        AWS_SHARED_CREDENTIALS_FILE=os.devnull,
    )
    yield
    os.environ.clear()
    os.environ.update(developer)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """As a training worker of one CPU: pytest-xdist's processes, each with all cores, would wait for one another."""
    import torch  # not by processes that only collect

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _environment_restored() -> Iterator[None]:
    """Code under test may set variables for its child processes; the next test does not see them."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="session")
def store_home(_own_environment: None) -> Iterator[Path]:
    """HEP2FLOW_HOME with a running embedded server, one for each worker of pytest-xdist; stopped at the end."""
    embedded_server.ensure_running()
    yield embedded_server.home()
    embedded_server.down()


@pytest.fixture
def own_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An embedded server of this test alone, which it may stop and kill; started by whoever opens the store first."""
    for name in embedded_server.VARIABLES:  # a module's own Ray may have set them for its workers
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HEP2FLOW_HOME", str(tmp_path / "home"))
    yield
    embedded_server.down()


@pytest.fixture
def store(store_home: Path) -> Store:
    """An empty store. The environment names it too, for commands and child processes."""
    os.environ.update(embedded_server.ensure_running().environment(), HEP2FLOW_PREFIX=f"test-{secrets.token_hex(6)}")
    return open_store()


@pytest.fixture(scope="session")
def i3a_zip() -> Path:
    """The archive of real I3A cells that HEP2FLOW_I3A names."""
    value = os.environ.get("HEP2FLOW_I3A")
    if not value:
        pytest.skip("HEP2FLOW_I3A is not set: it names the archive of real I3A cells")
    if not Path(value).is_file():
        pytest.skip(f"HEP2FLOW_I3A names {value}, which is not there")
    return Path(value)
