from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hep2flow.errors import StoreError, UserError
from hep2flow.store import embedded_server
from hep2flow.store.open_store import open_store
from hep2flow.store.s3 import Store


@pytest.fixture
def own_home(tmp_path: Path) -> Iterator[Path]:
    """A home without a server yet, and no other store in sight."""
    for name in embedded_server.VARIABLES:
        os.environ.pop(name, None)
    os.environ["HEP2FLOW_HOME"] = str(tmp_path / "home")
    yield tmp_path / "home"
    if pid := embedded_server.status()["pid"]:
        os.kill(pid, signal.SIGKILL)  # stopping it gently takes 2 s
        embedded_server._remove_sockets(
            json.loads((tmp_path / "home" / "storage" / "server.json").read_text())["ports"]
        )


def listening(pid: int) -> set[str]:
    """Addresses a process listens on, as the kernel names them: hexadecimal ``address:port``."""
    sockets = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = os.readlink(link)
        except FileNotFoundError:
            continue
        if target.startswith("socket:["):
            sockets.add(target[8:-1])
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            columns = line.split()
            if columns[3] == "0A" and columns[9] in sockets:
                found.add(columns[1])
    return found


def test_from_first_start_through_a_crash_to_down(own_home: Path) -> None:
    assert embedded_server.status()["running"] is False
    assert embedded_server.down() is False

    store = open_store()
    server = embedded_server.ensure_running()
    store.put_bytes("kept", b"data")
    assert embedded_server.ensure_running() == server

    status = embedded_server.status()
    assert (status["running"], status["pid"], status["endpoint"]) == (True, server.pid, server.endpoint)
    assert status["data"].startswith(str(own_home))
    assert status["bytes"] > 0

    os.kill(server.pid, signal.SIGKILL)
    again = embedded_server.ensure_running()
    assert again.pid != server.pid
    os.environ.update(again.environment())
    assert open_store().get_bytes("kept") == b"data"

    assert embedded_server.down() is True
    assert embedded_server.status()["running"] is False
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", again.ports["s3"]), timeout=5)
    assert not list(Path("/tmp").glob(f"seaweedfs-*-{again.ports['s3']}.sock"))  # noqa: S108

    os.environ.update(embedded_server.ensure_running().environment())
    assert open_store().get_bytes("kept") == b"data"


def test_two_starters_get_one_server(own_home: Path) -> None:
    code = "from hep2flow.store import embedded_server; print(embedded_server.ensure_running().pid)"
    starters = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    pids = {starter.communicate()[0].strip() for starter in starters}
    assert [starter.returncode for starter in starters] == [0, 0]
    assert pids == {str(embedded_server.status()["pid"])}


def test_it_listens_on_loopback_only(store_home: Path) -> None:
    server = embedded_server.ensure_running()
    addresses = {address.split(":")[0] for address in listening(server.pid)}
    assert addresses == {"0100007F"}


def test_secrets_are_for_the_owner_only(store_home: Path) -> None:
    server = embedded_server.ensure_running()
    for name in ("credentials.json", "s3.json"):
        assert stat.S_IMODE((store_home / "storage" / name).stat().st_mode) == 0o600
    assert stat.S_IMODE((store_home / "storage" / "data").stat().st_mode) == 0o700
    assert server.secret_key not in repr(server)
    assert server.secret_key not in json.dumps(embedded_server.status())
    assert server.secret_key not in (store_home / "storage" / "weed.log").read_text()
    assert server.secret_key not in " ".join(embedded_server._command_line(server.pid))


def test_anonymous_access_is_refused(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    with pytest.raises(StoreError, match="does not accept these credentials"):
        open_store().check()


def test_a_pid_of_another_program_is_not_our_server(own_home: Path) -> None:
    (own_home / "storage").mkdir(parents=True)
    ports = {name: 12_000 + i for i, name in enumerate(embedded_server.PORTS)}
    record = {"pid": os.getpid(), "ports": ports, "since": "2026-01-01T00:00:00+00:00"}
    (own_home / "storage" / "server.json").write_text(json.dumps(record))
    assert embedded_server.status()["running"] is False
    assert embedded_server.down() is False


def test_a_server_that_cannot_start_names_its_log(own_home: Path) -> None:
    (own_home / "storage").mkdir(parents=True)
    (own_home / "storage" / "data").mkdir()
    (own_home / "storage" / "data" / "filerldb2").write_text("in the way of the server's own folder")
    with pytest.raises(StoreError, match=r"weed\.log") as error:
        embedded_server.ensure_running()
    assert "\n" not in str(error.value)
    assert (own_home / "storage" / "weed.log").stat().st_size > 0


def test_a_home_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    os.environ["HEP2FLOW_HOME"] = str(tmp_path / "file" / "home")
    with pytest.raises(UserError, match="HEP2FLOW_HOME"):
        embedded_server.ensure_running()


def test_home_follows_the_environment(tmp_path: Path) -> None:
    os.environ["HEP2FLOW_HOME"] = str(tmp_path)
    assert embedded_server.home() == tmp_path
    del os.environ["HEP2FLOW_HOME"]
    os.environ["XDG_DATA_HOME"] = str(tmp_path / "share")
    assert embedded_server.home() == tmp_path / "share" / "hep2flow"
    del os.environ["XDG_DATA_HOME"]
    assert embedded_server.home() == Path.home() / ".local" / "share" / "hep2flow"


FULL = """
import resource, secrets, sys, time
from hep2flow.errors import StoreError
from hep2flow.store.open_store import open_store
resource.setrlimit(resource.RLIMIT_FSIZE, (6 * 2**20, 6 * 2**20))  # the server inherits it
began = time.monotonic()
try:
    open_store().put_bytes("large", secrets.token_bytes(12 * 2**20))
except StoreError as error:
    print(error)
    print(time.monotonic() - began)
"""


def test_a_server_whose_disk_is_full_is_reported_as_such(own_home: Path) -> None:
    answer = subprocess.run([sys.executable, "-c", FULL], capture_output=True, text=True, check=True)
    message, seconds = answer.stdout.splitlines()
    assert "disk may be full" in message
    assert float(seconds) < 20


def test_the_server_outlives_its_starter(own_home: Path) -> None:
    name = secrets.token_hex(4)
    code = f"from hep2flow.store.open_store import open_store; open_store().put_bytes({name!r}, b'1')"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert embedded_server.status()["running"] is True
    assert open_store().exists(name)
