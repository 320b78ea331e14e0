"""Errors of an S3 server as one line for the user, without what the server echoes of a request."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from botocore import exceptions as boto
from s3transfer.exceptions import RetriesExceededError

from hep2flow.errors import StoreError

# EFBIG is what a process limited by `ulimit -f` meets.
NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
MOVED = frozenset({"PermanentRedirect", "AuthorizationHeaderMalformed", "TemporaryRedirect"})
REFUSED_KEYS = frozenset({"InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken"})


class NotThereError(StoreError):
    """No object, or no bucket, of that name."""


class DamagedError(StoreError):
    """An object that is not what was written."""


@contextmanager
def translate_errors(endpoint: str, bucket: str, action: str) -> Iterator[None]:
    """Turn what boto3 raises inside into a :class:`StoreError`.

    The endpoint is written as the user knows it, the action with its object, for example ``reading s3://bucket/key``.
    """
    try:
        yield
    except boto.ClientError as error:
        kind, what = _explain_answer(error, endpoint, bucket)
        raise kind(f"{action}: {what}") from error
    except RetriesExceededError as error:
        last = type(error.last_exception).__name__
        raise StoreError(f"{action}: {endpoint} broke off again and again ({last}); try again") from error
    except boto.BotoCoreError as error:
        raise StoreError(f"{action}: {_explain_no_answer(error, endpoint)}") from error
    except OSError as error:
        what = f"{error.strerror or type(error).__name__} on this machine ({error.filename})"
        if error.errno in NO_SPACE:
            what = f"no space left on this machine's disk ({error.strerror}); free some and try again"
        raise StoreError(f"{action}: {what}") from error


def _explain_answer(error: boto.ClientError, endpoint: str, bucket: str) -> tuple[type[StoreError], str]:
    code = str(error.response.get("Error", {}).get("Code", ""))
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if code == "NoSuchBucket":
        return NotThereError, f"{endpoint} has no bucket {bucket}; create it, or set HEP2FLOW_BUCKET to another"
    # The answer to HEAD has no body, and so no code.
    if code == "NoSuchKey" or (status == 404 and error.operation_name.startswith("Head")):
        return NotThereError, "not there"
    if status == 404:
        what = "does not answer like an S3 server (404); check AWS_ENDPOINT_URL"
    elif code in REFUSED_KEYS:
        what = f"does not accept these credentials ({code}); check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    elif status == 403:
        what = f"forbids it ({code}); check the credentials and what they may do in bucket {bucket}"
    elif status in (301, 307, 400) and code in MOVED:
        return StoreError, f"bucket {bucket} lies in another region; set AWS_REGION to it"
    elif status >= 500:
        hint = "its disk may be full or its server may be down: look at its free space and its log"
        what = f"keeps answering {status} {code}; {hint}"
    else:
        what = f"answered {status} {code}"
    return StoreError, f"{endpoint} {what}"


def _explain_no_answer(error: boto.BotoCoreError, endpoint: str) -> str:
    if isinstance(error, (boto.NoCredentialsError, boto.PartialCredentialsError, boto.CredentialRetrievalError)):
        return "no complete credentials found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
    if isinstance(error, boto.ProfileNotFound):
        return "there is no such profile in the AWS configuration; check AWS_PROFILE"
    if isinstance(error, (boto.ConnectTimeoutError, boto.ReadTimeoutError)):
        return f"{endpoint} does not answer in time; check AWS_ENDPOINT_URL and the network"
    return f"cannot reach {endpoint} ({type(error).__name__}); check AWS_ENDPOINT_URL and that the server runs"
