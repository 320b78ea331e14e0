"""The object store, over boto3: AWS S3 and every server that speaks its protocol."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, suppress
from datetime import datetime
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

import boto3
from boto3.s3.transfer import TransferConfig, create_transfer_manager
from botocore.config import Config
from botocore.exceptions import ClientError, IncompleteReadError, ReadTimeoutError, ResponseStreamingError
from pydantic import ValidationError

from hep2flow.errors import StoreError, UserError
from hep2flow.store.address import StoreAddress, split_uri, validation_message
from hep2flow.store.errors import DamagedError, NotThereError, translate_errors
from hep2flow.store.layout import MANIFEST
from hep2flow.store.local_files import file_sha256, files_in, safe_path
from hep2flow.store.outage import Log, OutageNotifier

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

THREADS = 4
ATTEMPTS = 5
CONNECT_SECONDS = 5
READ_SECONDS = 60
MULTIPART_BYTES = 64 * 2**20  # parts cost requests, threads and copies: not for the states of small networks
PART_BYTES = 16 * 2**20
BLOCK_BYTES = 2**20
TRANSFER = TransferConfig(multipart_threshold=MULTIPART_BYTES, multipart_chunksize=PART_BYTES, max_concurrency=THREADS)
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})

Answer = TypeVar("Answer")


class StoredObject(NamedTuple):
    """One object: its key relative to the store's prefix, its bytes, and the time of writing with time zone."""

    key: str
    size: int
    modified: datetime


class Store:
    """One bucket, or one folder of it. Keys are relative to the address's prefix. Safe to share between threads.

    Credentials are found as boto3 finds them: environment, profile, role. Every method raises :class:`StoreError`
    where the store cannot be reached, refuses, or lacks what was requested.

    Args:
        address: Of the store.
        on_outage: Makes every request wait up to ten minutes for a store that does not answer, or answers 5xx; called
            with one line when the store becomes unreachable, and when it is back. None: some seconds only, because a
            person waits.
    """

    def __init__(self, address: StoreAddress, on_outage: Log | None = None) -> None:
        self.address = address
        self._root = f"{address.prefix}/" if address.prefix else ""
        self._endpoint = address.endpoint or f"AWS S3 ({address.region})"
        self._client = self._connect(ATTEMPTS)
        if on_outage is not None:
            OutageNotifier(self._client, self._endpoint, on_outage)

    def __repr__(self) -> str:
        return f"Store({self.uri('')} at {self._endpoint})"

    def _connect(self, attempts: int) -> S3Client:
        endpoint = self.address.endpoint
        local = endpoint is not None and urlsplit(endpoint).hostname in LOOPBACK
        # Nothing can change what is sent on this machine: a signature over all bytes would cost their hash once more.
        s3: Any = {"addressing_style": "path" if endpoint else "virtual"}
        s3 |= {"payload_signing_enabled": False} if local else {}
        config = Config(
            retries={"mode": "standard", "total_max_attempts": attempts},
            connect_timeout=CONNECT_SECONDS,
            read_timeout=READ_SECONDS,
            max_pool_connections=THREADS * THREADS,
            s3=s3,
            # Servers other than AWS know the older checksums only; files carry our own SHA-256 in any case.
            request_checksum_calculation="when_required" if endpoint else "when_supported",
            response_checksum_validation="when_required" if endpoint else "when_supported",
            # A proxy cannot reach this machine's loopback, whatever HTTP_PROXY says.
            proxies={} if local else None,
        )
        with self._translating("connecting"):
            return boto3.Session().client("s3", endpoint_url=endpoint, region_name=self.address.region, config=config)

    def _translating(self, action: str) -> AbstractContextManager[None]:
        return translate_errors(self._endpoint, self.address.bucket, action)

    def _full(self, key: str) -> str:
        if not key or key.startswith("/"):
            raise ValueError(f"not a key: {key!r}")
        return self._root + key

    def uri(self, key: str) -> str:
        """``s3://bucket/prefix/key``."""
        return f"s3://{self.address.bucket}/{self._root}{key}"

    def key(self, uri: str) -> str:
        """Return the key that a URI of this store stands for; UserError for a URI outside it."""
        root = self.uri("")
        if not uri.startswith(root) or uri == root:
            raise UserError(f"{uri}: lies outside this store, whose objects begin with {root}")
        return uri[len(root) :]

    def check(self) -> None:
        """Check that the store is reachable and accepts the credentials; create a missing bucket where that is allowed."""
        client, bucket = self._connect(2), self.address.bucket  # fewer attempts than elsewhere: a person waits
        try:
            with self._translating(f"checking {self.uri('')}"):
                client.list_objects_v2(Bucket=bucket, Prefix=self._root, MaxKeys=1)
        except NotThereError:
            options: Any = {}
            if not self.address.endpoint and self.address.region != "us-east-1":
                options = {"CreateBucketConfiguration": {"LocationConstraint": self.address.region}}
            # Another process may be faster.
            with self._translating(f"creating bucket {bucket}"), suppress(client.exceptions.BucketAlreadyOwnedByYou):
                client.create_bucket(Bucket=bucket, **options)

    def exists(self, key: str) -> bool:
        """Whether there is an object of that key; a folder is no object."""
        try:
            self._head(key)
        except NotThereError:
            return False
        return True

    def size(self, key: str) -> int:
        """Return the bytes of an object."""
        return self._head(key)[0]

    def sha256(self, key: str) -> str:
        """Return the SHA-256 of an object: from its metadata where we wrote it, else from its bytes."""
        return self._head(key)[1] or hashlib.sha256(self.get_bytes(key)).hexdigest()

    def _head(self, key: str) -> tuple[int, str | None]:
        with self._translating(f"looking at {self.uri(key)}"):
            answer = self._client.head_object(Bucket=self.address.bucket, Key=self._full(key))
            return answer["ContentLength"], answer["Metadata"].get("sha256")

    def _get(self, key: str, **options: Any) -> Any:
        return self._client.get_object(Bucket=self.address.bucket, Key=self._full(key), **options)

    def get_bytes(self, key: str) -> bytes:
        """Read a complete object into memory."""
        with self._translating(f"reading {self.uri(key)}"):
            return _retry(lambda: bytes(self._get(key)["Body"].read()), _was_cut_off)

    def put_bytes(self, key: str, data: bytes, *, if_absent: bool = False) -> bool:
        """Write an object. With ``if_absent``, False where one existed already: of many writers, one gets True."""
        condition: Any = {"IfNoneMatch": "*"} if if_absent else {}

        def write() -> None:
            self._client.put_object(Bucket=self.address.bucket, Key=self._full(key), Body=data, **condition)

        with self._translating(f"writing {self.uri(key)}"):
            try:
                # 409: two conditional writers at the same moment; AWS tells both to try again.
                _retry(write, lambda error: if_absent and _http_status(error) == 409)
            except ClientError as error:
                if not if_absent or _http_status(error) != 412:
                    raise
                return False
            return True

    def get_json(self, key: str) -> Any:
        """Read the value of a JSON object; UserError for anything else."""
        try:
            return json.loads(self.get_bytes(key))
        except ValueError as error:
            raise UserError(f"{self.uri(key)}: not JSON ({error}); delete it and run again") from error

    def find_json(self, key: str) -> dict[str, Any] | None:
        """Read the value of a JSON object that is a mapping; None where there is none."""
        try:
            value = self.get_json(key)
        except NotThereError:
            return None
        return value if isinstance(value, dict) else None

    def put_json(self, key: str, value: Any, *, if_absent: bool = False) -> bool:
        """Write JSON that a person can read; ValueError for NaN and infinity. Returns as :meth:`put_bytes`."""
        text = json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        return self.put_bytes(key, text.encode(), if_absent=if_absent)

    def get_file(self, key: str, path: Path) -> None:
        """Download an object, verified by size and, where known, SHA-256; ``path`` appears complete or not at all."""
        partial = path.with_name(f".{secrets.token_hex(8)}.partial")
        with self._translating(f"downloading {self.uri(key)}"):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                size, sha256 = _retry(lambda: self._fetch(key, partial), _was_cut_off)
                if partial.stat().st_size != size or (sha256 and file_sha256(partial) != sha256):
                    raise DamagedError(f"{self.uri(key)}: arrived damaged, or was rewritten meanwhile; try again")
                partial.replace(path)
            finally:
                partial.unlink(missing_ok=True)

    def _fetch(self, key: str, path: Path) -> tuple[int, str | None]:
        """Size and SHA-256 that the object should have."""
        answer = self._get(key)
        size = answer["ContentLength"]
        with path.open("wb") as file, closing(answer["Body"]) as body:
            if size < MULTIPART_BYTES:
                # The manager's threads cost more than the request of a small file.
                for block in body.iter_chunks(BLOCK_BYTES):
                    file.write(block)
            else:
                self._client.download_fileobj(self.address.bucket, self._full(key), file, Config=TRANSFER)
        return size, answer["Metadata"].get("sha256")

    def resume_file(self, key: str, path: Path, size: int, sha256: str, progress: Callable[[int], None]) -> None:
        """Download an object to a file that appears with this size and SHA-256, or not at all.

        An interrupted download stays beside the file under a hidden name: the next call resumes from there.

        ``progress`` is called after each block with the bytes on disk. DamagedError where the object has other bytes.
        """
        partial = path.with_name(f".{path.name}.{sha256[:16]}.partial")
        with self._translating(f"downloading {self.uri(key)}"):
            path.parent.mkdir(parents=True, exist_ok=True)
            _retry(lambda: self._append(key, partial, size, progress), _was_cut_off)
            if partial.stat().st_size != size or file_sha256(partial) != sha256:
                partial.unlink()
                raise DamagedError(f"{self.uri(key)}: its bytes are not those that its manifest names")
            partial.replace(path)

    def _append(self, key: str, partial: Path, size: int, progress: Callable[[int], None]) -> None:
        with partial.open("ab") as file:
            if file.tell() < size:
                for block in self._get(key, Range=f"bytes={file.tell()}-")["Body"].iter_chunks(BLOCK_BYTES):
                    file.write(block)
                    progress(file.tell())

    def put_file(self, path: Path, key: str, sha256: str | None = None) -> None:
        """Upload a file, in parts where it is large, with its SHA-256 (computed where None) in the object's metadata."""
        bucket, full, metadata = self.address.bucket, self._full(key), {"sha256": sha256 or file_sha256(path)}
        with self._translating(f"uploading {path} to {self.uri(key)}"):
            if path.stat().st_size < MULTIPART_BYTES:
                # The manager's threads cost more than the request of a small file.
                with path.open("rb") as file:
                    self._client.put_object(Bucket=bucket, Key=full, Body=file, Metadata=metadata)
                return
            # By its path: of an open file each part would be copied into memory.
            with create_transfer_manager(self._client, TRANSFER) as manager:
                manager.upload(str(path), bucket, full, {"Metadata": metadata}).result()

    def get_folder(self, prefix: str, folder: Path) -> list[Path]:
        """Download all objects under a prefix; returns their paths, sorted."""
        start = len(as_folder(prefix))
        paths = {item.key: safe_path(folder, item.key[start:]) for item in self.list_objects(prefix)}
        with ThreadPoolExecutor(THREADS) as threads:
            list(threads.map(self.get_file, paths.keys(), paths.values()))  # cancels the others after an error
        return sorted(paths.values())

    def put_folder(self, folder: Path, prefix: str, sha256: Mapping[str, str] | None = None) -> None:
        """Upload all files of a folder, its folders included; ``sha256`` by file name, computed where None."""
        files = files_in(folder)
        keys = [as_folder(prefix) + name for name in files]
        digests = [None if sha256 is None else sha256[name] for name in files]
        with ThreadPoolExecutor(THREADS) as threads:
            list(threads.map(self.put_file, files.values(), keys, digests))  # cancels the others after an error

    def list_objects(self, prefix: str) -> Iterator[StoredObject]:
        """List the objects under a folder, in the order of their keys; an empty prefix lists the complete store."""
        for page in self._pages(prefix):
            for item in page.get("Contents", []):
                if not item["Key"].endswith("/"):  # the marks that some tools leave for folders
                    yield StoredObject(item["Key"][len(self._root) :], item["Size"], item["LastModified"])

    def folders(self, prefix: str) -> Iterator[str]:
        """List the names of the folders directly under a folder, without listing what they hold."""
        start = len(self._root + as_folder(prefix))
        for page in self._pages(prefix, Delimiter="/"):
            for item in page.get("CommonPrefixes", []):
                yield item["Prefix"][start:-1]

    def _pages(self, prefix: str, **options: Any) -> Iterator[Any]:
        with self._translating(f"listing {self.uri(prefix)}"):
            pages, full = self._client.get_paginator("list_objects_v2"), self._root + as_folder(prefix)
            yield from pages.paginate(Bucket=self.address.bucket, Prefix=full, **options)

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects; missing ones are no error."""
        remaining = iter(keys)
        while batch := list(islice(remaining, 1000)):
            objects: Any = {"Objects": [{"Key": self._full(key)} for key in batch], "Quiet": True}
            with self._translating(f"deleting from {self.uri('')}"):
                answer = self._client.delete_objects(Bucket=self.address.bucket, Delete=objects)
            for error in answer.get("Errors", []):
                raise StoreError(f"deleting {error.get('Key')}: {self._endpoint} answered {error.get('Code')}")

    def delete_folder(self, prefix: str) -> None:
        """Delete all objects under a folder, its manifest first: a half-deleted folder never looks complete."""
        assert prefix.strip("/"), "the complete store is never deleted at once"
        self.delete([as_folder(prefix) + MANIFEST])
        self.delete([item.key for item in self.list_objects(prefix)])

    def objects_at(self, uri: str) -> Iterator[StoredObject]:
        """List what a URI names, in any bucket of this server: one object, or all objects under a prefix."""
        store, key = self._resolve(uri)
        if key and not key.endswith("/") and store.exists(key):
            return (item for item in store.list_objects(key.rpartition("/")[0]) if item.key == key)
        return store.list_objects(key)

    def download(self, uri: str, folder: Path) -> None:
        """Download what a URI names, in any bucket of this server: one object, or all objects under a prefix."""
        store, key = self._resolve(uri)
        if key and not key.endswith("/") and store.exists(key):
            store.get_file(key, safe_path(folder, PurePosixPath(key).name))
        elif not store.get_folder(key, folder):
            raise NotThereError(f"{uri}: nothing there; check the name of the bucket and the prefix")

    def _resolve(self, uri: str) -> tuple[Store, str]:
        """The store of a URI's bucket, and its key there."""
        bucket, key = split_uri(uri)
        try:
            address = self.address.model_copy(update={"bucket": StoreAddress(bucket=bucket).bucket, "prefix": ""})
        except ValidationError as error:
            raise UserError(f"{uri}: {validation_message(error)}") from None
        return Store(address), key


def as_folder(prefix: str) -> str:
    """Return a prefix with exactly one slash at its end; empty stays empty."""
    return f"{prefix.strip('/')}/" if prefix.strip("/") else ""


def _retry(request: Callable[[], Answer], retryable: Callable[[Exception], bool]) -> Answer:
    """Repeat what botocore does not: it retries until an answer begins, not where it is cut off."""
    for _ in range(ATTEMPTS - 1):
        try:
            return request()
        except Exception as error:
            if not retryable(error):
                raise
    return request()


def _was_cut_off(error: Exception) -> bool:
    return isinstance(error, (ResponseStreamingError, IncompleteReadError, ReadTimeoutError))


def _http_status(error: Exception) -> int | None:
    return error.response["ResponseMetadata"]["HTTPStatusCode"] if isinstance(error, ClientError) else None
