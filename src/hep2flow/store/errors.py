"""What goes wrong between us and an S3 server, told in one line. Never repeats what the server echoes of a request."""

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
def translated(endpoint: str, bucket: str, doing: str) -> Iterator[None]:
    """Turns what boto3 raises inside into a :class:`StoreError`.

    endpoint: the server as the user knows it
    doing:    what was being done and to what, for example ``reading s3://bucket/key``
    """
    try:
        yield
    except ClientError as error:
        raise _answered(error, endpoint, bucket, doing) from error
    except RetriesExceededError as error:
        last = error.last_exception
        raise StoreError(f"{doing}: {endpoint} broke off again and again ({type(last).__name__}); try again") from error
    except BotoCoreError as error:
        raise _unanswered(error, endpoint, doing) from error
    except OSError as error:
        raise _local(error, doing) from error


def _answered(error: ClientError, endpoint: str, bucket: str, doing: str) -> StoreError:
    code = str(error.response.get("Error", {}).get("Code", ""))
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if code == "NoSuchBucket":
        return NotThereError(
            f"{doing}: {endpoint} has no bucket {bucket}; create it, or set HEP2FLOW_BUCKET to another"
        )
    # The answer to HEAD has no body, and so no code.
    if code == "NoSuchKey" or (status == 404 and error.operation_name.startswith("Head")):
        return NotThereError(f"{doing}: not there")
    if status == 404:
        return StoreError(f"{doing}: {endpoint} does not answer like an S3 server (404); check AWS_ENDPOINT_URL")
    if code in REFUSED_KEYS:
        return StoreError(
            f"{doing}: {endpoint} does not accept these credentials ({code}); "
            "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    if status == 403:
        return StoreError(
            f"{doing}: {endpoint} forbids it ({code}); check the credentials and what they may do in bucket {bucket}"
        )
    if status in (301, 307, 400) and code in ("PermanentRedirect", "AuthorizationHeaderMalformed", "TemporaryRedirect"):
        return StoreError(f"{doing}: bucket {bucket} lies in another region; set AWS_REGION to it")
    if status >= 500:
        return StoreError(
            f"{doing}: {endpoint} keeps answering {status} {code}; "
            "its disk may be full or its server may be down: look at its free space and its log"
        )
    return StoreError(f"{doing}: {endpoint} answered {status} {code}")


def _unanswered(error: BotoCoreError, endpoint: str, doing: str) -> StoreError:
    if isinstance(error, (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError)):
        return StoreError(
            f"{doing}: no complete credentials found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
        )
    if isinstance(error, ProfileNotFound):
        return StoreError(f"{doing}: there is no such profile in the AWS configuration; check AWS_PROFILE")
    if isinstance(error, (ConnectTimeoutError, ReadTimeoutError)):
        return StoreError(f"{doing}: {endpoint} does not answer in time; check AWS_ENDPOINT_URL and the network")
    return StoreError(
        f"{doing}: cannot reach {endpoint} ({type(error).__name__}); check AWS_ENDPOINT_URL and that the server runs"
    )


def _local(error: OSError, doing: str) -> StoreError:
    if error.errno in NO_SPACE:
        return StoreError(f"{doing}: no space left on this machine's disk ({error.strerror}); free some and try again")
    return StoreError(f"{doing}: {error.strerror or type(error).__name__} on this machine ({error.filename})")
