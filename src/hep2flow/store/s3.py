"""The object store, over boto3: AWS S3 and every server that speaks its language."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import secrets
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import boto3
from boto3.s3.transfer import TransferConfig, create_transfer_manager
from botocore.config import Config
from botocore.exceptions import ClientError, IncompleteReadError, ReadTimeoutError, ResponseStreamingError
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from hep2flow.errors import StoreError, UserError
from hep2flow.store import embedded_server
from hep2flow.store.errors import DamagedError, NotThereError, translated
from hep2flow.store.outage import Patience, Tell

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

MANIFEST = "manifest.json"
THREADS = 4
ATTEMPTS = 5
CONNECT_SECONDS = 5
READ_SECONDS = 60
MULTIPART_BYTES = 64 * 2**20  # parts cost requests, threads and copies: not for the states of small networks
PART_BYTES = 16 * 2**20
BLOCK_BYTES = 2**20
TRANSFER = TransferConfig(multipart_threshold=MULTIPART_BYTES, multipart_chunksize=PART_BYTES, max_concurrency=THREADS)
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})

Progress = Callable[[int, int], None]
Read = TypeVar("Read")
Paths = list[Path]  # inside Store, `list` is its method


class StoreAddress(BaseModel):
    """Where a store is, without the right to enter it: safe to write down and to send to other machines.

    endpoint: URL of an S3 server, None for AWS
    region:   AWS region; other servers ignore it
    bucket:   the bucket's name
    prefix:   folder inside the bucket, without slashes at its ends; empty for the whole bucket
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    endpoint: str | None = None
    region: str = "us-east-1"
    bucket: str
    prefix: str = ""

    @field_validator("endpoint")
    @classmethod
    def _endpoint(cls, value: str | None) -> str | None:
        if value is None:
            return None
        parts = urlsplit(value)
        if "@" in value:
            raise ValueError("the endpoint must not hold credentials; give them as AWS_ACCESS_KEY_ID and its secret")
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise ValueError("the endpoint must be a URL such as http://127.0.0.1:9000")
        return value.rstrip("/")

    @field_validator("bucket")
    @classmethod
    def _bucket(cls, value: str) -> str:
        if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", value):
            raise ValueError("a bucket has 3 to 63 characters of a-z, 0-9, dot and hyphen")
        return value

    @field_validator("prefix")
    @classmethod
    def _prefix(cls, value: str) -> str:
        value = value.strip("/")
        if value and any(segment in ("", ".", "..") for segment in value.split("/")):
            raise ValueError("a prefix is a path of plain names, for example team/hep2")
        return value


@dataclass(frozen=True)
class StoredObject:
    """One object: its key (relative to the store's prefix), its bytes, and when it was written (with time zone)."""

    key: str
    size: int
    modified: datetime


class Store:
    """One bucket, or one folder of it. Keys are relative to the address's prefix. Safe to share between threads.

    Credentials are found as boto3 finds them: environment, profile, role. Every method raises :class:`StoreError`
    where the store cannot be reached, refuses, or lacks what was asked of it.

    patient: a store that does not answer, or answers 5xx, is tried again for about ten minutes, and this is told that it
             is away and that it is back; None for some seconds only, because a person waits
    """

    def __init__(self, address: StoreAddress, patient: Tell | None = None) -> None:
        self.address = address
        self._root = f"{address.prefix}/" if address.prefix else ""
        self._endpoint = address.endpoint or f"AWS S3 ({address.region})"
        self._client = self._connect(ATTEMPTS)
        if patient is not None:
            Patience(self._client, self._endpoint, patient)

    def __repr__(self) -> str:
        return f"Store({self.uri('')} at {self._endpoint})"

    def _connect(self, attempts: int) -> S3Client:
        endpoint = self.address.endpoint
        here = endpoint is not None and urlsplit(endpoint).hostname in LOOPBACK
        config = Config(
            retries={"mode": "standard", "total_max_attempts": attempts},
            connect_timeout=CONNECT_SECONDS,
            read_timeout=READ_SECONDS,
            max_pool_connections=THREADS * THREADS,
            # Nothing can change what is sent on this machine: a signature over all bytes would cost their hash once more.
            s3={
                "addressing_style": "path" if endpoint else "virtual",
                **({"payload_signing_enabled": False} if here else {}),
            },
            # Servers other than AWS know the older checksums only; files carry our own SHA-256 in any case.
            request_checksum_calculation="when_required" if endpoint else "when_supported",
            response_checksum_validation="when_required" if endpoint else "when_supported",
            # A proxy cannot reach this machine's loopback, whatever HTTP_PROXY says.
            proxies={} if here else None,
        )
        with self._doing("connecting"):
            return boto3.Session().client("s3", endpoint_url=endpoint, region_name=self.address.region, config=config)

    def _doing(self, what: str) -> AbstractContextManager[None]:
        return translated(self._endpoint, self.address.bucket, what)

    def _full(self, key: str) -> str:
        if not key or key.startswith("/"):
            raise ValueError(f"not a key: {key!r}")
        return self._root + key

    def uri(self, key: str) -> str:
        """``s3://bucket/prefix/key``."""
        return f"s3://{self.address.bucket}/{self._root}{key}"

    def key(self, uri: str) -> str:
        """The key a URI of this store stands for; UserError for a URI outside it."""
        root = self.uri("")
        if not uri.startswith(root) or uri == root:
            raise UserError(f"{uri}: lies outside this store, whose objects begin with {root}")
        return uri[len(root) :]

    def check(self) -> None:
        """Reachable, credentials accepted, bucket there; a missing bucket is created where that is allowed."""
        # Fewer attempts than elsewhere: a person waits for the answer.
        client = self._connect(2)
        bucket = self.address.bucket
        try:
            with self._doing(f"checking {self.uri('')}"):
                client.list_objects_v2(Bucket=bucket, Prefix=self._root, MaxKeys=1)
        except NotThereError:
            with self._doing(f"creating bucket {bucket}"):
                try:
                    if self.address.endpoint or self.address.region == "us-east-1":
                        client.create_bucket(Bucket=bucket)
                    else:
                        place: Any = {"LocationConstraint": self.address.region}
                        client.create_bucket(Bucket=bucket, CreateBucketConfiguration=place)
                except client.exceptions.BucketAlreadyOwnedByYou:
                    pass  # another process was faster

    def exists(self, key: str) -> bool:
        """Whether there is an object of that key; a folder is no object."""
        try:
            self._head(key)
        except NotThereError:
            return False
        return True

    def size(self, key: str) -> int:
        """Bytes of an object."""
        return self._head(key)[0]

    def _head(self, key: str) -> tuple[int, str | None]:
        with self._doing(f"looking at {self.uri(key)}"):
            answer = self._client.head_object(Bucket=self.address.bucket, Key=self._full(key))
            return answer["ContentLength"], answer["Metadata"].get("sha256")

    def get_bytes(self, key: str) -> bytes:
        """The whole object, in memory."""
        with self._doing(f"reading {self.uri(key)}"):
            return _to_its_end(
                lambda: self._client.get_object(Bucket=self.address.bucket, Key=self._full(key))["Body"].read()
            )

    def put_bytes(self, key: str, data: bytes, *, if_absent: bool = False) -> bool:
        """Write an object. With ``if_absent``, False where one was there already: of many writers, one gets True."""
        bucket, full = self.address.bucket, self._full(key)
        with self._doing(f"writing {self.uri(key)}"):
            if not if_absent:
                self._client.put_object(Bucket=bucket, Key=full, Body=data)
                return True
            attempt = 1
            while True:
                try:
                    self._client.put_object(Bucket=bucket, Key=full, Body=data, IfNoneMatch="*")
                    return True
                except ClientError as error:
                    status = error.response["ResponseMetadata"]["HTTPStatusCode"]
                    if status == 412:
                        return False
                    # 409: two writers at the same moment; AWS asks both to try again.
                    if status != 409 or attempt == ATTEMPTS:
                        raise
                    attempt += 1

    def get_json(self, key: str) -> Any:
        """The value of a JSON object; UserError for anything else."""
        try:
            return json.loads(self.get_bytes(key))
        except ValueError as error:
            raise UserError(f"{self.uri(key)}: not JSON ({error}); delete it and run again") from error

    def put_json(self, key: str, value: Any, *, if_absent: bool = False) -> bool:
        """Write JSON that a person can read; ValueError for NaN and infinity. Returns as :meth:`put_bytes`."""
        text = json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        return self.put_bytes(key, text.encode(), if_absent=if_absent)

    def get_file(self, key: str, path: Path) -> None:
        """Download an object, verified by size and, where known, SHA-256; ``path`` appears whole or not at all."""
        partial = path.with_name(f".{secrets.token_hex(8)}.partial")
        with self._doing(f"downloading {self.uri(key)}"):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                size, sha256 = _to_its_end(lambda: self._fetch(key, partial))
                if partial.stat().st_size != size or (sha256 and file_sha256(partial) != sha256):
                    raise DamagedError(f"{self.uri(key)}: arrived damaged, or was rewritten meanwhile; try again")
                partial.replace(path)
            finally:
                partial.unlink(missing_ok=True)

    def _fetch(self, key: str, path: Path) -> tuple[int, str | None]:
        """Size and SHA-256 that the object should have."""
        answer = self._client.get_object(Bucket=self.address.bucket, Key=self._full(key))
        size = answer["ContentLength"]
        with path.open("wb") as file, closing(answer["Body"]) as body:
            if size < MULTIPART_BYTES:
                # The manager's threads cost more than the request of a small file.
                for block in body.iter_chunks(BLOCK_BYTES):
                    file.write(block)
            else:
                self._client.download_fileobj(self.address.bucket, self._full(key), file, Config=TRANSFER)
        return size, answer["Metadata"].get("sha256")

    def continue_file(self, key: str, path: Path, size: int, sha256: str, arrived: Callable[[int], None]) -> None:
        """Download an object to a file that appears with this size and SHA-256, or not at all.

        What has arrived when this is broken off stays beside it under a hidden name: the next call goes on from there.
        arrived: told after each block how many bytes are there
        Raises DamagedError where the object's bytes are others.
        """
        partial = path.with_name(f".{path.name}.{sha256[:16]}.partial")
        with self._doing(f"downloading {self.uri(key)}"):
            path.parent.mkdir(parents=True, exist_ok=True)
            _to_its_end(lambda: self._append(key, partial, size, arrived))
            if partial.stat().st_size != size or file_sha256(partial) != sha256:
                partial.unlink()
                raise DamagedError(f"{self.uri(key)}: its bytes are not those that its manifest names")
            partial.replace(path)

    def _append(self, key: str, partial: Path, size: int, arrived: Callable[[int], None]) -> None:
        with partial.open("ab") as file:
            if file.tell() < size:
                answer = self._client.get_object(
                    Bucket=self.address.bucket, Key=self._full(key), Range=f"bytes={file.tell()}-"
                )
                for block in answer["Body"].iter_chunks(BLOCK_BYTES):
                    file.write(block)
                    arrived(file.tell())

    def put_file(self, path: Path, key: str) -> None:
        """Upload a file, in parts where it is large, with its SHA-256 in the object's metadata."""
        self._put_file(path, key, file_sha256(path))

    def _put_file(self, path: Path, key: str, sha256: str) -> None:
        bucket, full, facts = self.address.bucket, self._full(key), {"sha256": sha256}
        with self._doing(f"uploading {path} to {self.uri(key)}"):
            if path.stat().st_size < MULTIPART_BYTES:
                # The manager's threads cost more than the request of a small file.
                with path.open("rb") as file:
                    self._client.put_object(Bucket=bucket, Key=full, Body=file, Metadata=facts)
                return
            # By its path: of an open file each part would be copied into memory.
            with create_transfer_manager(self._client, TRANSFER) as manager:
                manager.upload(str(path), bucket, full, {"Metadata": facts}).result()

    def get_folder(self, prefix: str, folder: Path, progress: Progress | None = None) -> Paths:
        """Download all objects under a prefix; returns their paths, sorted.

        progress: called in this thread with (bytes done, bytes in all) after each file
        """
        objects = list(self.list(prefix))
        paths = {item.key: inside(folder, item.key[len(as_folder(prefix)) :]) for item in objects}
        total, done = sum(item.size for item in objects), 0
        with _threads() as run:
            jobs = [(item, run.submit(self.get_file, item.key, paths[item.key])) for item in objects]
            for item, job in jobs:
                job.result()
                done += item.size
                if progress is not None:
                    progress(done, total)
        return sorted(paths.values())

    def put_folder(self, folder: Path, prefix: str) -> None:
        """Upload all files of a folder, its folders included."""
        with _threads() as run:
            _finish([run.submit(self.put_file, path, as_folder(prefix) + name) for name, path in files_in(folder)])

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """Objects under a folder, in the order of their keys; an empty prefix lists the whole store."""
        with self._doing(f"listing {self.uri(prefix)}"):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self.address.bucket, Prefix=self._root + as_folder(prefix)
            )
            for page in pages:
                for item in page.get("Contents", []):
                    if not item["Key"].endswith("/"):  # the marks that some tools leave for folders
                        yield StoredObject(item["Key"][len(self._root) :], item["Size"], item["LastModified"])

    def folders(self, prefix: str) -> Iterator[str]:
        """Names of the folders directly under a folder, without listing what they hold."""
        start = self._root + as_folder(prefix)
        with self._doing(f"listing {self.uri(prefix)}"):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self.address.bucket, Prefix=start, Delimiter="/"
            )
            for page in pages:
                for item in page.get("CommonPrefixes", []):
                    yield item["Prefix"][len(start) : -1]

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects; those that are not there are no error."""
        remaining = iter(keys)
        while batch := list(islice(remaining, 1000)):
            with self._doing(f"deleting from {self.uri('')}"):
                answer = self._client.delete_objects(
                    Bucket=self.address.bucket,
                    Delete={"Objects": [{"Key": self._full(key)} for key in batch], "Quiet": True},
                )
            for fault in answer.get("Errors", []):
                raise StoreError(f"deleting {fault.get('Key')}: {self._endpoint} answered {fault.get('Code')}")

    def delete_folder(self, prefix: str) -> None:
        """Delete all objects under a folder, its manifest first: nobody sees half of it as whole."""
        assert prefix.strip("/"), "the whole store is never deleted at once"
        self.delete([as_folder(prefix) + MANIFEST])
        self.delete(item.key for item in list(self.list(prefix)))

    def publish(self, folder: Path, prefix: str, manifest: dict[str, Any]) -> None:
        """Upload every file of a folder, then ``manifest.json``, which gains ``files: {name: {size, sha256}}``.

        Whoever sees the manifest sees everything it names. An older publication with other files is withdrawn first.
        """
        files = dict(files_in(folder))
        assert MANIFEST not in files, f"{folder} already has a {MANIFEST}"
        facts = {name: {"size": path.stat().st_size, "sha256": file_sha256(path)} for name, path in files.items()}
        place = as_folder(prefix)
        older = self._manifest(prefix)
        if older is not None and older.get("files") != facts:
            self.delete([place + MANIFEST])
        with _threads() as run:
            _finish(
                [
                    run.submit(self._put_file, path, place + name, str(facts[name]["sha256"]))
                    for name, path in files.items()
                ]
            )
        self.put_json(place + MANIFEST, {**manifest, "files": facts})

    def _manifest(self, prefix: str) -> dict[str, Any] | None:
        try:
            manifest = self.get_json(as_folder(prefix) + MANIFEST)
        except NotThereError:
            return None
        return manifest if isinstance(manifest, dict) else None

    def published(self, prefix: str) -> dict[str, Any] | None:
        """The manifest, where it is there and every file it names has its size; None where the folder is not whole."""
        manifest = self._manifest(prefix)
        if manifest is None or not isinstance(manifest.get("files"), dict):
            return None
        sizes = {item.key: item.size for item in self.list(prefix)}
        whole = all(sizes.get(as_folder(prefix) + name) == fact["size"] for name, fact in manifest["files"].items())
        return manifest if whole else None

    def objects_at(self, uri: str) -> Iterator[StoredObject]:
        """What a URI names, in any bucket of this server: one object, or all objects under a prefix."""
        other, key = self._elsewhere(uri)
        if key and not key.endswith("/") and other.exists(key):
            folder = key.rpartition("/")[0]
            return (item for item in other.list(folder) if item.key == key)
        return other.list(key)

    def sha256(self, key: str) -> str:
        """SHA-256 of an object: from its metadata where we wrote it, else from its bytes."""
        known = self._head(key)[1]
        return known or hashlib.sha256(self.get_bytes(key)).hexdigest()

    def _elsewhere(self, uri: str) -> tuple[Store, str]:
        bucket, key = split_uri(uri)
        try:
            address = self.address.model_copy(update={"bucket": StoreAddress(bucket=bucket).bucket, "prefix": ""})
        except ValidationError as error:
            raise UserError(f"{uri}: {_first(error)}") from None
        return Store(address), key

    def download(self, uri: str, folder: Path) -> None:
        """Download what a URI names, in any bucket of this server: one object, or all objects under a prefix."""
        other, key = self._elsewhere(uri)
        if key and not key.endswith("/") and other.exists(key):
            other.get_file(key, inside(folder, PurePosixPath(key).name))
        elif not other.get_folder(key, folder):
            raise NotThereError(f"{uri}: nothing there; check the name of the bucket and the prefix")


def split_uri(uri: str) -> tuple[str, str]:
    """Bucket and key of ``s3://bucket/key``; UserError for anything else."""
    scheme, separator, rest = uri.partition("://")
    bucket, _, key = rest.partition("/")
    if scheme != "s3" or not separator or not bucket:
        raise UserError(f"{uri}: not an object store address; write s3://bucket/prefix")
    return bucket, key


def as_folder(prefix: str) -> str:
    """A prefix with exactly one slash at its end; empty stays empty."""
    return f"{prefix.strip('/')}/" if prefix.strip("/") else ""


def inside(folder: Path, name: str) -> Path:
    """Path of ``name`` in ``folder``; StoreError for a key that would lead out of it."""
    if PurePosixPath(name).is_absolute() or any(part in ("", ".", "..") for part in name.split("/")) or "\0" in name:
        raise StoreError(f"{name}: no safe file name; rename this object in the store")
    return folder / name


def files_in(folder: Path) -> list[tuple[str, Path]]:
    """All files of a folder with their names relative to it, slashes between, sorted."""
    return sorted((path.relative_to(folder).as_posix(), path) for path in folder.rglob("*") if path.is_file())


def file_sha256(path: Path | str) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    total = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        for block in iter(lambda: file.read(io.DEFAULT_BUFFER_SIZE * 128), b""):
            total.update(block)
    return total.hexdigest()


def _to_its_end(read: Callable[[], Read]) -> Read:
    """boto3 tries again until an answer begins, not where it breaks off."""
    for _ in range(ATTEMPTS - 1):
        with suppress(ResponseStreamingError, IncompleteReadError, ReadTimeoutError):
            return read()
    return read()


@contextmanager
def _threads() -> Iterator[ThreadPoolExecutor]:
    run = ThreadPoolExecutor(THREADS)
    try:
        yield run
    finally:
        run.shutdown(cancel_futures=True)


def _finish(jobs: list[Future[None]]) -> None:
    for job in jobs:
        job.result()


CREDENTIALS = (
    "AWS_ACCESS_KEY_ID",
    "AWS_PROFILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)


def open_store(address: StoreAddress | None = None, patient: Tell | None = None) -> Store:
    """The store the environment names; the embedded one, started where necessary, where it names none.

    address: skips the environment, apart from the credentials
    patient: as for :class:`Store`
    Reads AWS_ENDPOINT_URL, AWS_REGION, HEP2FLOW_BUCKET and HEP2FLOW_PREFIX. After the embedded server was chosen they
    are set in ``os.environ``, with its credentials, so that child processes use the same store.
    Raises UserError where the settings are given by half.
    """
    if address is not None:
        return Store(address, patient)
    given = {name for name, value in os.environ.items() if value}
    if ("AWS_ACCESS_KEY_ID" in given) != ("AWS_SECRET_ACCESS_KEY" in given):
        missing = "AWS_SECRET_ACCESS_KEY" if "AWS_ACCESS_KEY_ID" in given else "AWS_ACCESS_KEY_ID"
        raise UserError(f"{missing} is not set, but its other half is; set both, or neither for the embedded store")
    credentials = [name for name in CREDENTIALS if name in given]
    if not credentials and "AWS_ENDPOINT_URL" not in given:
        if "HEP2FLOW_BUCKET" in given and os.environ["HEP2FLOW_BUCKET"] != embedded_server.BUCKET:
            raise UserError(
                "HEP2FLOW_BUCKET is set, but neither AWS_ACCESS_KEY_ID nor AWS_PROFILE is; "
                "set the credentials of that bucket, or unset HEP2FLOW_BUCKET for the embedded store"
            )
        os.environ.update(embedded_server.ensure().environment())
    elif not credentials and boto3.Session().get_credentials() is None:
        raise UserError(
            "AWS_ENDPOINT_URL is set, but AWS_ACCESS_KEY_ID is not; set it and AWS_SECRET_ACCESS_KEY, "
            "or unset AWS_ENDPOINT_URL for the embedded store"
        )
    elif "HEP2FLOW_BUCKET" not in given:
        setting = "AWS_ENDPOINT_URL" if "AWS_ENDPOINT_URL" in given else credentials[0]
        raise UserError(f"HEP2FLOW_BUCKET is not set, but {setting} is; set it to the bucket's name")
    try:
        return Store(
            StoreAddress(
                endpoint=os.environ.get("AWS_ENDPOINT_URL") or None,
                region=os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1",
                bucket=os.environ["HEP2FLOW_BUCKET"],
                prefix=os.environ.get("HEP2FLOW_PREFIX", ""),
            ),
            patient,
        )
    except ValidationError as error:
        variables = {"endpoint": "AWS_ENDPOINT_URL", "bucket": "HEP2FLOW_BUCKET", "prefix": "HEP2FLOW_PREFIX"}
        raise UserError(f"{variables[str(error.errors()[0]['loc'][0])]}: {_first(error)}") from None


def _first(error: ValidationError) -> str:
    # Never pydantic's own text: it repeats the input, and an endpoint may have come with a password in it.
    return str(error.errors()[0]["msg"]).removeprefix("Value error, ")
