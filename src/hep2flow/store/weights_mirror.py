"""Pre-trained weights in the store: the file at its SHA-256, and an entry by the network's name, written last."""

from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, Field, ValidationError

from hep2flow.errors import UserError
from hep2flow.store import layout
from hep2flow.store.errors import NotThereError
from hep2flow.store.local_files import file_sha256
from hep2flow.store.runs import now
from hep2flow.store.s3 import Store


class Mirrored(BaseModel, extra="forbid", frozen=True):
    """``weights/hub/{network}.json``."""

    network: str  # timm's full name, with its tag
    origin: str  # the hub's repository with its revision, or the name of the file that was given
    sha256: str
    key: str  # of the safetensors in the store
    bytes: int
    mirrored: datetime = Field(default_factory=now)


def put_weights(store: Store, path: Path) -> tuple[str, str]:
    """Copy a safetensors file into the store, once; returns its key and SHA-256.

    Raises:
        UserError: The copy in the store differs from the file.
    """
    sha256 = file_sha256(path)
    key = layout.weights_file(sha256)
    if not store.exists(key):
        store.put_file(path, key)
    if store.sha256(key) != sha256:
        raise UserError(f"{store.uri(key)}: damaged in the store; delete the object and mirror the weights again")
    return key, sha256


def mirror_file(store: Store, path: Path, network: str, origin: str) -> Mirrored:
    """Put the file into the store as the pre-trained weights of a network."""
    key, sha256 = put_weights(store, path)
    entry = Mirrored(network=network, origin=origin, sha256=sha256, key=key, bytes=path.stat().st_size)
    store.put_json(layout.mirror_entry(network), entry.model_dump(mode="json"))
    return entry


def find_mirrored(store: Store, network: str) -> Mirrored | None:
    """Return the weights mirrored for a network's full name; None where there are none, or their file is gone."""
    try:
        entry = _read(store, layout.mirror_entry(network))
    except NotThereError:
        return None
    return entry if store.exists(entry.key) else None


def list_mirrored(store: Store) -> list[Mirrored]:
    """List every mirrored network, by name."""
    return [_read(store, item.key) for item in store.list_objects(layout.MIRRORS)]


def _read(store: Store, key: str) -> Mirrored:
    try:
        return Mirrored.model_validate(store.get_json(key))
    except ValidationError as error:
        raise UserError(f"{store.uri(key)}: damaged; mirror these weights again") from error
