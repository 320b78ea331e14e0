"""Errors of an S3 server as one line for the user, without what the server echoes of a request."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    CredentialRetrievalError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
    ReadTimeoutError,
)
from s3transfer.exceptions import RetriesExceededError

from hep2flow.errors import StoreError

# EFBIG is what a process limited by `ulimit -f` meets.
NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
REFUSED_KEYS = frozenset({"InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken"})


class NotThereError(StoreError):
    """No object, or no bucket, of that name."""


class DamagedError(StoreError):
    """An object that is not what was written."""


@contextmanager
def translate_errors(endpoint: str, bucket: str, action: str) -> Iterator[None]:
    """Turn what boto3 raises inside into a :class:`StoreError`.

    Args:
        endpoint: The server as the user knows it.
        bucket: Name of the bucket.
        action: What is being done and to what, for example ``reading s3://bucket/key``.
    """
    try:
        yield
    except ClientError as error:
        raise _from_answer(error, endpoint, bucket, action) from error
    except RetriesExceededError as error:
        last = error.last_exception
        raise StoreError(
            f"{action}: {endpoint} broke off again and again ({type(last).__name__}); try again"
        ) from error
    except BotoCoreError as error:
        raise _from_no_answer(error, endpoint, action) from error
    except OSError as error:
        raise _from_local(error, action) from error


def _from_answer(error: ClientError, endpoint: str, bucket: str, action: str) -> StoreError:
    code = str(error.response.get("Error", {}).get("Code", ""))
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if code == "NoSuchBucket":
        return NotThereError(
            f"{action}: {endpoint} has no bucket {bucket}; create it, or set HEP2FLOW_BUCKET to another"
        )
    # The answer to HEAD has no body, and so no code.
    if code == "NoSuchKey" or (status == 404 and error.operation_name.startswith("Head")):
        return NotThereError(f"{action}: not there")
    if status == 404:
        return StoreError(f"{action}: {endpoint} does not answer like an S3 server (404); check AWS_ENDPOINT_URL")
    if code in REFUSED_KEYS:
        return StoreError(
            f"{action}: {endpoint} does not accept these credentials ({code}); "
            "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    if status == 403:
        return StoreError(
            f"{action}: {endpoint} forbids it ({code}); check the credentials and what they may do in bucket {bucket}"
        )
    if status in (301, 307, 400) and code in ("PermanentRedirect", "AuthorizationHeaderMalformed", "TemporaryRedirect"):
        return StoreError(f"{action}: bucket {bucket} lies in another region; set AWS_REGION to it")
    if status >= 500:
        return StoreError(
            f"{action}: {endpoint} keeps answering {status} {code}; "
            "its disk may be full or its server may be down: look at its free space and its log"
        )
    return StoreError(f"{action}: {endpoint} answered {status} {code}")


def _from_no_answer(error: BotoCoreError, endpoint: str, action: str) -> StoreError:
    if isinstance(error, (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError)):
        return StoreError(
            f"{action}: no complete credentials found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
        )
    if isinstance(error, ProfileNotFound):
        return StoreError(f"{action}: there is no such profile in the AWS configuration; check AWS_PROFILE")
    if isinstance(error, (ConnectTimeoutError, ReadTimeoutError)):
        return StoreError(f"{action}: {endpoint} does not answer in time; check AWS_ENDPOINT_URL and the network")
    return StoreError(
        f"{action}: cannot reach {endpoint} ({type(error).__name__}); check AWS_ENDPOINT_URL and that the server runs"
    )


def _from_local(error: OSError, action: str) -> StoreError:
    if error.errno in NO_SPACE:
        return StoreError(f"{action}: no space left on this machine's disk ({error.strerror}); free some and try again")
    return StoreError(f"{action}: {error.strerror or type(error).__name__} on this machine ({error.filename})")
