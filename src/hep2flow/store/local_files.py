"""Files on this machine that go to the store or come from it."""

import hashlib
import io
from pathlib import Path, PurePosixPath

from hep2flow.errors import StoreError


def safe_path(folder: Path, name: str) -> Path:
    """Return the path of ``name`` in ``folder``; StoreError for a key that would lead out of it."""
    if PurePosixPath(name).is_absolute() or any(part in ("", ".", "..") for part in name.split("/")) or "\0" in name:
        raise StoreError(f"{name}: no safe file name; rename this object in the store")
    return folder / name


def files_in(folder: Path) -> dict[str, Path]:
    """Return all files of a folder by their names relative to it, slashes between, sorted."""
    return dict(sorted((path.relative_to(folder).as_posix(), path) for path in folder.rglob("*") if path.is_file()))


def file_sha256(path: Path | str) -> str:
    """Compute the SHA-256 of a file's bytes, in hexadecimal."""
    total = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        for block in iter(lambda: file.read(io.DEFAULT_BUFFER_SIZE * 128), b""):
            total.update(block)
    return total.hexdigest()
