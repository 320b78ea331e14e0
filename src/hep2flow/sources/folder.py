"""A plain folder of cells: ``CLASS/file.png``, perhaps ``CLASS/file_mask.png``, perhaps in ``train/`` and ``test/``."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Sequence
from pathlib import PurePosixPath

from hep2flow.cells import OfficialSplit
from hep2flow.sources import image_files
from hep2flow.sources.file_tree import FileTree
from hep2flow.sources.listing import Labels, Listing

LOOKED_FOR = "CLASS/file.png with at least two class folders, if need be below train/ and test/"

_SPLITS: dict[str, OfficialSplit] = {"train": "train", "training": "train", "test": "test", "testing": "test"}
_NO_SPLITS = {"val", "valid", "validation"}
_MASK = re.compile(r"_mask$", re.IGNORECASE)
_LOSSY = {".jpg", ".jpeg", ".jpe", ".jp2", ".gif", ".webp", ".heic", ".avif"}


def find_root(tree: FileTree) -> str | None:
    """The folder of the class or split folders, with a trailing slash or empty; None where there are none."""
    parents = sorted({os.path.dirname(name) for name in tree.names if _is_image(name) or _is_lossy(name)})
    if not parents:
        return None
    common: list[str] = []
    for part in os.path.commonpath(parents).split("/"):
        if not part or part.lower() in _SPLITS:
            break
        common.append(part)
    root = "".join(f"{part}/" for part in common)
    classes = {parent[len(root) :].split("/")[-1] for parent in parents if len(parent) > len(root)}
    return root if len(classes) > 1 else None


def read_labels(tree: FileTree, root: str) -> Labels:
    """Every cell of the folder; its pattern is its class folder's name in lower snake case."""
    labels = Labels()
    files = [name for name in tree.names if name.startswith(root)]
    tops = {name[len(root) :].split("/")[0].lower() for name in files if _is_image(name) and "/" in name[len(root) :]}
    has_splits = tops <= _SPLITS.keys() | _NO_SPLITS
    class_names: dict[str, str] = {}
    images_by_stem: dict[str, str] = {}
    masks_by_stem: dict[str, str] = {}
    others = []
    for name in files:
        path = PurePosixPath(name)
        if _is_lossy(name):
            labels.fault(name, f"{path.suffix} images are lossy", "give the original pixels as PNG, BMP or TIFF")
        elif not _is_image(name):
            others.append(name)
        else:
            stem = name[len(root) : -len(path.suffix)]
            found, stem = (masks_by_stem, _MASK.sub("", stem)) if _MASK.search(stem) else (images_by_stem, stem)
            if stem in found:
                labels.fault(name, f"the same name as {found[stem]}", "rename or remove one of the two")
            else:
                found[stem] = name
    for stem, image in images_by_stem.items():
        folders = stem.split("/")[:-1]
        split = None
        if has_splits and folders and (split := _split(folders.pop(0), image, labels)) is None:
            continue
        if len(folders) != 1:
            expected = f"{root}{'train/' if has_splits else ''}CLASS/file"
            labels.fault(image, "does not lie in a class folder", f"place it as {expected}")
            continue
        if (pattern := _pattern(folders[0], image, class_names, labels)) is not None:
            labels.listings.append(Listing(stem, split, pattern, None, None, image, masks_by_stem.get(stem), image))
    for stem in sorted(masks_by_stem.keys() - images_by_stem.keys()):
        labels.fault(masks_by_stem[stem], "mask without an image", "add the image, or remove the mask")
    if others:
        labels.notes.append(f"{len(others)} files that are no images were ignored: {_some(others)}")
    labels.notes += [f"class {n!r} is called {slug!r}" for slug, n in sorted(class_names.items()) if n != slug]
    return labels


def _is_image(name: str) -> bool:
    return name.lower().endswith(image_files.SUFFIXES)


def _is_lossy(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in _LOSSY


def _split(folder: str, image: str, labels: Labels) -> OfficialSplit | None:
    split = _SPLITS.get(folder.lower())
    if split is None:
        labels.fault(
            image,
            f"unknown split {folder!r}",
            "use train and test; move validation cells to train, a stage draws its own",
        )
    return split


def _pattern(folder: str, image: str, class_names: dict[str, str], labels: Labels) -> str | None:
    slug = re.sub(r"[\W_]+", "_", unicodedata.normalize("NFKC", folder).lower()).strip("_")
    if not slug:
        labels.fault(image, f"class folder {folder!r} has no letter or digit", "rename the folder")
        return None
    known = class_names.setdefault(slug, folder)
    if known != folder:
        labels.fault(image, f"classes {known!r} and {folder!r} would both be called {slug!r}", "rename or merge them")
        return None
    return slug


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
