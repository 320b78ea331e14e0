"""Ingest: read and check a laboratory's files, and publish them as a data set in the object store."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hep2flow.cells import CellWriter, temporary_folder
from hep2flow.distributed.ray_cluster import prestart_cluster
from hep2flow.errors import DataFaults
from hep2flow.sources import open_source
from hep2flow.sources.file_tree import folder_tree
from hep2flow.stage_result import Progress, StageResult
from hep2flow.store import layout
from hep2flow.store.datasets import publish_dataset
from hep2flow.store.local_files import file_sha256
from hep2flow.store.publish import find_published
from hep2flow.store.s3 import Store
from hep2flow.store.splits import Split, write_split
from hep2flow.store.stage_cache import CachedStage, stage_key


def ingest(
    store: Store, source: str, format: str = "auto", name: str | None = None, progress: Progress | None = None
) -> StageResult:
    """Read and check every cell of a source, and publish the data set.

    The source is a directory, a .zip or .tar(.gz) archive, or an s3:// prefix; a data set of this store is used as it is.
    ``format`` is auto, icpr2012, i3a or folder; ``name`` the data set's in the store, None for the source's own.

    Returns:
        The data set; the summary's ``given_split`` is the URI of the source's own split (``public_split.csv``), or empty.

    Raises:
        DataFaults: With every fault found; then nothing is written.
    """
    if (existing := _existing_dataset(store, source)) is not None:
        return existing
    digest = _source_digest(store, source)
    cache = None
    if digest is not None:
        key = stage_key("ingest", {"source": digest, "format": format, "name": name})
        cache = CachedStage(store, "ingest", key)
        cached = cache.lookup()
        if cached is not None and (not (uri := cached.summary["given_split"]) or store.exists(store.key(uri))):
            return cached
    with open_source(source, format, store.download) as opened, temporary_folder() as scratch:
        faults = list(opened.faults)
        if not faults:
            prestart_cluster()
        with CellWriter(scratch / "dataset") as writer:
            for read in opened.cells(faults, progress):
                if not faults:
                    writer.add(read.cell, read.max_value, read.mask_sha256)
        if faults:
            raise DataFaults(source, faults)
        masked = sum(listing.mask is not None for listing in opened.listings)
        facts = {
            "source_format": opened.format,
            "synthetic": opened.synthetic,
            "notes": opened.notes,
            "id_order_is_proxy": opened.id_order_is_proxy,
            "parent": None,
            "mask": {"mode": "none", "given": masked, "derived": 0},
        }
        given_split = ""
        if opened.given_split is not None:
            given_split = write_split(store, Split(opened.given_split, "given", None, None, writer.digest))
            facts["given_split"] = store.key(given_split)
        uri = publish_dataset(store, name or opened.name, writer, facts)
        summary = _summary(writer.count, given_split, facts)
    if cache is None:
        cache = CachedStage(store, "ingest", stage_key("ingest", {"dataset": uri}))
    return cache.commit(uri, "folder", summary)


def _summary(cells: int, given_split: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    return {"cells": cells, "given_split": given_split, "synthetic": facts["synthetic"], "notes": facts["notes"]}


def _existing_dataset(store: Store, source: str) -> StageResult | None:
    """The result for a source that is a complete data set of this store; None for any other."""
    inside = source.startswith(store.uri(layout.DATASETS + "/"))
    if not inside or (manifest := find_published(store, store.key(source))) is None:
        return None
    facts = manifest["facts"]
    split = facts.get("given_split")
    summary = _summary(manifest["count"], "" if split is None else store.uri(split), facts)
    key = stage_key("ingest", {"dataset": source})
    return StageResult(stage="ingest", key=key, uri=source.rstrip("/"), cached=True, summary=summary)


def _source_digest(store: Store, source: str) -> str | None:
    """Digest of the source's bytes, so that unchanged files are not decoded again; None where they cannot be read."""
    total = hashlib.sha256()
    if source.startswith("s3://"):
        for item in store.objects_at(source):
            total.update(f"{item.key}\0{item.size}\0{item.modified.isoformat()}\n".encode())
        return total.hexdigest()
    path = Path(source).expanduser()
    if path.is_file():
        folder, names = path.parent, [path.name]
    elif path.is_dir():
        total.update(os.fsencode(path.resolve().name))  # a folder of classes names its data set
        folder, names = path, folder_tree(path).names
    else:
        return None
    try:
        for name in names:
            total.update(os.fsencode(f"{name}\0{file_sha256(os.path.join(folder, name))}\n"))
    except OSError:  # reported, with all other faults, by the reader
        return None
    return total.hexdigest()
