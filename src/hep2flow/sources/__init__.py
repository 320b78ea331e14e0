"""Data sets as people have them: ICPR 2012, I3A, or a plain folder of classes, in a folder or an archive."""

import re
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import Literal, cast

from hep2flow.errors import UserError
from hep2flow.sources import folder, i3a, icpr2012
from hep2flow.sources.file_tree import ARCHIVE_SUFFIXES, FileTree, open_tree
from hep2flow.sources.listing import LabelledSize, Labels, Listing, Subset
from hep2flow.sources.source import ReadCell, Source

__all__ = ["FORMATS", "LabelledSize", "Listing", "ReadCell", "Source", "Subset", "open_source"]

Format = Literal["icpr2012", "i3a", "folder"]
FORMATS: tuple[Format, ...] = ("icpr2012", "i3a", "folder")

# In the order in which they are tried: I3A's labels in a folder named ``training`` would pass for ICPR 2012's.
_READERS: dict[Format, ModuleType] = {"i3a": i3a, "icpr2012": icpr2012, "folder": folder}
_SPLIT_ORDER = {"train": 0, "test": 1, None: 2}


def open_source(location: str, format: str = "auto", download: Callable[[str, Path], None] | None = None) -> Source:
    """Open a data set and read its labels; its pixels are read by :meth:`Source.cells`.

    Args:
        location: A folder, ``.zip``, ``.tar``, ``.tar.gz``, ``.tgz``, or an ``s3://`` URI of one of those.
        format: icpr2012, i3a, folder, or auto: recognised by the files.
        download: Copies the objects of an ``s3://`` URI to a folder; needed for those only.

    Raises:
        UserError: It does not exist, is of an unknown format, no archive, an unsafe one, or holds no cells. What is wrong
            with single files and rows becomes ``faults`` instead, so that all of it is reported together.
    """
    if format not in ("auto", *FORMATS):
        raise UserError(f"unknown format {format!r}; use one of: auto, {', '.join(FORMATS)}")
    stack: ExitStack[None] = ExitStack()
    with stack:
        path = _local_path(location, download, stack)
        tree = open_tree(path, stack)
        if not tree.names:
            raise UserError(f"{location}: holds no files; check the path")
        recognised, labels = _read_labels(tree, location, cast(Format | Literal["auto"], format))
        _check_masks(labels)
        if not labels.listings and not labels.faults:
            raise UserError(f"{location}: holds no labelled cells; looked for {_READERS[recognised].LOOKED_FOR}")
        labels.listings.sort(key=lambda cell: (_SPLIT_ORDER[cell.official_split], cell.cell_id))
        labels.faults.sort()
        name, proxy = _data_set_name(location, recognised, labels), recognised == "i3a"
        return Source(
            **vars(labels), name=name, format=recognised, id_order_is_proxy=proxy, tree=tree, resources=stack.pop_all()
        )


def _local_path(location: str, download: Callable[[str, Path], None] | None, stack: ExitStack) -> Path:
    if not location.startswith("s3://"):
        return Path(location).expanduser()
    if download is None:
        raise ValueError("an s3:// location needs `download`")
    path = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hep2flow-")))
    download(location, path)
    files = [file for file in path.rglob("*") if file.is_file()]
    return files[0] if len(files) == 1 and files[0].name.lower().endswith(ARCHIVE_SUFFIXES) else path


def _read_labels(tree: FileTree, location: str, requested: Format | Literal["auto"]) -> tuple[Format, Labels]:
    for name, reader in _READERS.items():
        if requested in ("auto", name) and (root := reader.find_root(tree)) is not None:
            return name, reader.read_labels(tree, root)
    formats = FORMATS if requested == "auto" else (requested,)
    looked_for = "; ".join(f"{name}: {_READERS[name].LOOKED_FOR}" for name in formats)
    raise UserError(f"{location}: no known data set in it; looked for {looked_for}")


def _check_masks(labels: Labels) -> None:
    without = [listing.image for listing in labels.listings if listing.mask is None]
    if labels.listings and len(without) == len(labels.listings):
        labels.notes.append("no masks in this source")
    else:
        for image in without:
            labels.fault(image, "has no mask, other cells do", "add its mask, or remove all masks")


def _data_set_name(location: str, format: Format, labels: Labels) -> str:
    if format != "folder":
        return f"{format}-synthetic" if labels.synthetic else format
    name = location.rstrip("/").rsplit("/", 1)[-1] if location.startswith("s3://") else Path(location).resolve().name
    for suffix in ARCHIVE_SUFFIXES:
        name = name[: -len(suffix)] if name.lower().endswith(suffix) else name
    return re.sub(r"[^a-z0-9]+", "-", name.lower())[:40].strip("-") or "cells"
