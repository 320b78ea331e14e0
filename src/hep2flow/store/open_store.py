"""Open the store that the environment specifies."""

import os

import boto3
from pydantic import ValidationError

from hep2flow.errors import UserError
from hep2flow.store import embedded_server
from hep2flow.store.address import StoreAddress, validation_message
from hep2flow.store.outage import Log
from hep2flow.store.s3 import Store

CREDENTIALS = (
    "AWS_ACCESS_KEY_ID",
    "AWS_PROFILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)


def open_store(address: StoreAddress | None = None, on_outage: Log | None = None) -> Store:
    """Open the store that the environment specifies; the embedded one, started if necessary, where it specifies none.

    Reads AWS_ENDPOINT_URL, AWS_REGION, HEP2FLOW_BUCKET and HEP2FLOW_PREFIX. After the embedded server was chosen they
    are set in ``os.environ``, with its credentials, so that child processes use the same store. An ``address`` is used in
    place of the environment, apart from the credentials; ``on_outage`` is as for :class:`Store`.

    Raises:
        UserError: The settings are incomplete or malformed.
    """
    if address is not None:
        return Store(address, on_outage)
    _check_environment()
    endpoint, prefix = os.environ.get("AWS_ENDPOINT_URL") or None, os.environ.get("HEP2FLOW_PREFIX", "")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    try:
        address = StoreAddress(endpoint=endpoint, region=region, bucket=os.environ["HEP2FLOW_BUCKET"], prefix=prefix)
    except ValidationError as error:
        variables = {"endpoint": "AWS_ENDPOINT_URL", "bucket": "HEP2FLOW_BUCKET", "prefix": "HEP2FLOW_PREFIX"}
        field = str(error.errors()[0]["loc"][0])
        raise UserError(f"{variables[field]}: {validation_message(error)}") from None
    return Store(address, on_outage)


def _check_environment() -> None:
    """Start the embedded store where no other is specified; UserError for incomplete settings."""
    given = {name for name, value in os.environ.items() if value}
    if ("AWS_ACCESS_KEY_ID" in given) != ("AWS_SECRET_ACCESS_KEY" in given):
        missing = "AWS_SECRET_ACCESS_KEY" if "AWS_ACCESS_KEY_ID" in given else "AWS_ACCESS_KEY_ID"
        raise UserError(f"{missing} is not set, but its other half is; set both, or neither for the embedded store")
    credentials = [name for name in CREDENTIALS if name in given]
    if not credentials and "AWS_ENDPOINT_URL" not in given:
        if "HEP2FLOW_BUCKET" in given and os.environ["HEP2FLOW_BUCKET"] != embedded_server.BUCKET:
            remedy = "set the credentials of that bucket, or unset HEP2FLOW_BUCKET for the embedded store"
            raise UserError(f"HEP2FLOW_BUCKET is set, but neither AWS_ACCESS_KEY_ID nor AWS_PROFILE is; {remedy}")
        os.environ.update(embedded_server.ensure_running().environment())
    elif not credentials and boto3.Session().get_credentials() is None:
        remedy = "set it and AWS_SECRET_ACCESS_KEY, or unset AWS_ENDPOINT_URL for the embedded store"
        raise UserError(f"AWS_ENDPOINT_URL is set, but AWS_ACCESS_KEY_ID is not; {remedy}")
    elif "HEP2FLOW_BUCKET" not in given:
        setting = "AWS_ENDPOINT_URL" if "AWS_ENDPOINT_URL" in given else credentials[0]
        raise UserError(f"HEP2FLOW_BUCKET is not set, but {setting} is; set it to the bucket's name")
