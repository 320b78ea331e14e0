"""Published folders: files and a ``manifest.json`` that names them, written last; without it the folder does not exist."""

from pathlib import Path
from typing import Any

from hep2flow.store.layout import MANIFEST
from hep2flow.store.local_files import file_sha256, files_in
from hep2flow.store.s3 import Store, as_folder


def publish(store: Store, folder: Path, prefix: str, manifest: dict[str, Any]) -> None:
    """Upload every file of a folder, then ``manifest.json``, which gains ``files: {name: {size, sha256}}``.

    Whoever sees the manifest sees everything it names. An older publication with other files is withdrawn first.
    """
    files = files_in(folder)
    assert MANIFEST not in files, f"{folder} already has a {MANIFEST}"
    facts = {name: {"size": path.stat().st_size, "sha256": file_sha256(path)} for name, path in files.items()}
    older = store.find_json(as_folder(prefix) + MANIFEST)
    if older is not None and older.get("files") != facts:
        store.delete([as_folder(prefix) + MANIFEST])
    store.put_folder(folder, prefix, {name: str(fact["sha256"]) for name, fact in facts.items()})
    store.put_json(as_folder(prefix) + MANIFEST, {**manifest, "files": facts})


def find_published(store: Store, prefix: str) -> dict[str, Any] | None:
    """Return the manifest of a complete folder; None where it is missing, or a file it names is, or has another size."""
    manifest = store.find_json(as_folder(prefix) + MANIFEST)
    if manifest is None or not isinstance(manifest.get("files"), dict):
        return None
    sizes = {item.key: item.size for item in store.list_objects(prefix)}
    complete = all(sizes.get(as_folder(prefix) + name) == fact["size"] for name, fact in manifest["files"].items())
    return manifest if complete else None
