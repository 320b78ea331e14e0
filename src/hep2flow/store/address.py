"""The address of a store, and the URIs of its objects."""

import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ValidationError

from hep2flow.errors import UserError


def _check_endpoint(value: str) -> str:
    parts = urlsplit(value)
    if "@" in value:
        raise ValueError("the endpoint must not hold credentials; give them as AWS_ACCESS_KEY_ID and its secret")
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError("the endpoint must be a URL such as http://127.0.0.1:9000")
    return value.rstrip("/")


def _check_bucket(value: str) -> str:
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", value):
        raise ValueError("a bucket has 3 to 63 characters of a-z, 0-9, dot and hyphen")
    return value


def _check_prefix(value: str) -> str:
    value = value.strip("/")
    if value and any(segment in ("", ".", "..") for segment in value.split("/")):
        raise ValueError("a prefix is a path of plain names, for example team/hep2")
    return value


class StoreAddress(BaseModel, frozen=True, extra="forbid"):
    """Where a store is, without credentials: safe to write down and to send to other machines.

    A prefix is a folder inside the bucket, without slashes at its ends; empty for the complete bucket.
    """

    endpoint: Annotated[str, AfterValidator(_check_endpoint)] | None = None  # URL of an S3 server, None for AWS
    region: str = "us-east-1"  # of AWS; other servers ignore it
    bucket: Annotated[str, AfterValidator(_check_bucket)]
    prefix: Annotated[str, AfterValidator(_check_prefix)] = ""


def split_uri(uri: str) -> tuple[str, str]:
    """Split ``s3://bucket/key`` into bucket and key; UserError for anything else."""
    scheme, separator, rest = uri.partition("://")
    bucket, _, key = rest.partition("/")
    if scheme != "s3" or not separator or not bucket:
        raise UserError(f"{uri}: not an object store address; write s3://bucket/prefix")
    return bucket, key


def validation_message(error: ValidationError) -> str:
    """Return the first message of an address' validation, without the input, which may hold a password."""
    return str(error.errors()[0]["msg"]).removeprefix("Value error, ")
