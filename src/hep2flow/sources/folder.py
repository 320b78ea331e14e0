"""A plain folder of cells: ``CLASS/file.png``, perhaps ``CLASS/file_mask.png``, perhaps in ``train/`` and ``test/``."""

import os
import re
import unicodedata
from itertools import takewhile
from pathlib import PurePosixPath

from hep2flow.cells import OfficialSplit
from hep2flow.sources import image_files
from hep2flow.sources.file_tree import FileTree
from hep2flow.sources.listing import Labels, Listing

LOOKED_FOR = "CLASS/file.png with at least two class folders, if need be below train/ and test/"

_SPLITS: dict[str, OfficialSplit] = {"train": "train", "training": "train", "test": "test", "testing": "test"}
_VALIDATION = {"val", "valid", "validation"}
_MASK = re.compile(r"_mask$", re.IGNORECASE)
_LOSSY = (".jpg", ".jpeg", ".jpe", ".jp2", ".gif", ".webp", ".heic", ".avif")


def find_root(tree: FileTree) -> str | None:
    """The folder of the class or split folders, with a trailing slash or empty; None where there are none."""
    suffixes = (*image_files.SUFFIXES, *_LOSSY)
    parents = sorted({os.path.dirname(name) for name in tree.names if name.lower().endswith(suffixes)})
    if not parents:
        return None
    common = os.path.commonpath(parents).split("/")
    root = "".join(f"{part}/" for part in takewhile(lambda part: part and part.lower() not in _SPLITS, common))
    classes = {parent[len(root) :].split("/")[-1] for parent in parents if len(parent) > len(root)}
    return root if len(classes) > 1 else None


def read_labels(tree: FileTree, root: str) -> Labels:
    """Every cell of the folder; its pattern is its class folder's name in lower snake case."""
    labels = Labels()
    images, masks = _images_and_masks(tree, root, labels)
    tops = {stem.split("/")[0].lower() for stem in (*images, *masks) if "/" in stem}
    has_splits = tops <= _SPLITS.keys() | _VALIDATION
    class_names: dict[str, str] = {}
    for stem, image in images.items():
        folders = stem.split("/")[:-1]
        split = None
        if has_splits and folders and (split := _SPLITS.get((name := folders.pop(0)).lower())) is None:
            fix = "use train and test; move validation cells to train, a stage draws its own"
            labels.fault(image, f"unknown split {name!r}", fix)
            continue
        if len(folders) != 1:
            expected = f"{root}{'train/' if has_splits else ''}CLASS/file"
            labels.fault(image, "does not lie in a class folder", f"place it as {expected}")
        elif (pattern := _pattern(folders[0], image, class_names, labels)) is not None:
            labels.listings.append(Listing(stem, split, pattern, None, None, image, masks.get(stem), image))
    for stem in sorted(masks.keys() - images.keys()):
        labels.fault(masks[stem], "mask without an image", "add the image, or remove the mask")
    labels.notes += [f"class {n!r} is called {slug!r}" for slug, n in sorted(class_names.items()) if n != slug]
    return labels


def _images_and_masks(tree: FileTree, root: str, labels: Labels) -> tuple[dict[str, str], dict[str, str]]:
    """Images and masks below the root by their path in it, without ending and ``_mask``; notes the other files."""
    images: dict[str, str] = {}
    masks: dict[str, str] = {}
    others = []
    for name in tree.names:
        suffix = PurePosixPath(name).suffix
        if not name.startswith(root):
            continue
        if suffix.lower() in _LOSSY:
            labels.fault(name, f"{suffix} images are lossy", "give the original pixels as PNG, BMP or TIFF")
        elif not name.lower().endswith(image_files.SUFFIXES):
            others.append(name)
        else:
            path = name[len(root) : -len(suffix)]
            stem = _MASK.sub("", path)
            if (first := (images if stem == path else masks).setdefault(stem, name)) != name:
                labels.fault(name, f"the same name as {first}", "rename or remove one of the two")
    if others:
        examples = ", ".join(others[:3]) + (", …" if len(others) > 3 else "")
        labels.notes.append(f"{len(others)} files that are no images were ignored: {examples}")
    return images, masks


def _pattern(folder: str, image: str, class_names: dict[str, str], labels: Labels) -> str | None:
    """The pattern of a class folder, or None and a fault; ``class_names`` maps patterns to their folders."""
    slug = re.sub(r"[\W_]+", "_", unicodedata.normalize("NFKC", folder).lower()).strip("_")
    if not slug:
        labels.fault(image, f"class folder {folder!r} has no letter or digit", "rename the folder")
        return None
    if (known := class_names.setdefault(slug, folder)) != folder:
        labels.fault(image, f"classes {known!r} and {folder!r} would both be called {slug!r}", "rename or merge them")
        return None
    return slug
