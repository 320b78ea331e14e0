"""Ingest: a laboratory's files, checked one by one, become a data set in the object store."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from hep2flow.cells import CellWriter, scratch_folder
from hep2flow.distributed.ray_cluster import soon_wanted
from hep2flow.errors import DataFaults
from hep2flow.sources import open_source
from hep2flow.sources.file_tree import FolderTree
from hep2flow.stage_result import Progress, StageResult
from hep2flow.store import layout
from hep2flow.store.datasets import publish_dataset
from hep2flow.store.s3 import Store, file_sha256
from hep2flow.store.splits import Split, write_split
from hep2flow.store.stage_cache import code_version, commit, lookup, stage_key


def ingest(
    store: Store, source: str, format: str = "auto", name: str | None = None, progress: Progress | None = None
) -> StageResult:
    """Read every cell of ``source``, check it, and publish the data set.

    source: a directory, a .zip or .tar(.gz) archive, or an s3:// prefix; a data set of this store is taken as it is
    format: auto | icpr2012 | i3a | folder
    name:   of the data set in the store; the source's own where None
    The summary's ``given_split`` is the URI of the source's own division (``public_split.csv``), or empty.
    Raises DataFaults with every fault found; then nothing is written.
    """
    if (there := _dataset_there(store, source)) is not None:
        return there
    fingerprint = _fingerprint(store, source)
    key = None
    if fingerprint is not None:
        key = stage_key("ingest", {"source": fingerprint, "format": format, "name": name}, code_version("ingest"))
        entry = lookup(store, "ingest", key)
        if entry is not None and _given_split_there(store, entry["summary"]["given_split"]):
            return StageResult(
                stage="ingest", key=key, uri=entry["output"]["uri"], cached=True, summary=entry["summary"]
            )
    with open_source(source, format, store.download) as opened, scratch_folder() as scratch:
        faults = list(opened.faults)
        if not faults:
            soon_wanted()
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
        summary = {
            "cells": writer.count,
            "given_split": given_split,
            "synthetic": opened.synthetic,
            "notes": opened.notes,
        }
        key = key or stage_key("ingest", {"dataset": uri}, code_version("ingest"))
    commit(store, "ingest", key, {"output": {"uri": uri, "kind": "folder"}, "summary": summary})
    return StageResult(stage="ingest", key=key, uri=uri, summary=summary)


def _dataset_there(store: Store, source: str) -> StageResult | None:
    """The result for a source that is a whole data set of this store; None for any other."""
    inside = source.startswith(store.uri(layout.DATASETS + "/"))
    if not inside or (manifest := store.published(store.key(source))) is None:
        return None
    split, facts = manifest["facts"].get("given_split"), manifest["facts"]
    given_split = "" if split is None else store.uri(split)
    summary = {
        "cells": manifest["count"],
        "given_split": given_split,
        "synthetic": facts["synthetic"],
        "notes": facts["notes"],
    }
    key = stage_key("ingest", {"dataset": source}, code_version("ingest"))
    return StageResult(stage="ingest", key=key, uri=source.rstrip("/"), cached=True, summary=summary)


def _fingerprint(store: Store, source: str) -> str | None:
    """Digest of the source's bytes: unchanged files are not decoded again. None where they cannot be read."""
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
        folder, names = path, FolderTree(path).names
    else:
        return None
    try:
        for name in names:
            total.update(os.fsencode(f"{name}\0{file_sha256(os.path.join(folder, name))}\n"))
    except OSError:  # told, with all other faults, by what reads the file next
        return None
    return total.hexdigest()


def _given_split_there(store: Store, uri: str) -> bool:
    return not uri or store.exists(store.key(uri))
