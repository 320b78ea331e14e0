"""I3A Task 1 (the contest of ICIP 2013, ICPR 2014 and ICPR 2016).

``NNNNN.png``, ``NNNNN_Mask.png`` (only in the original distribution), ``gt_training.csv`` (``Image ID,Image class``, in
some copies ``Intensity``), and optionally ``public_split.csv`` (``Image ID,split``). Images may lie in folders below.
"""

from __future__ import annotations

import re

from hep2flow.errors import Fault, UserError
from hep2flow.sources.csv_labels import Row, Vocabulary, index_rows, read_intensity, read_table, whole_number
from hep2flow.sources.file_tree import FileTree
from hep2flow.sources.listing import Labels, Listing, Subset

NAME = "i3a"
PATTERNS = ("homogeneous", "speckled", "nucleolar", "centromere", "numem", "golgi")
LOOKED_FOR = "gt_training.csv and images NNNNN.png with numbers of five digits"

_AS_PUBLISHED = ("Homogeneous", "Speckled", "Nucleolar", "Centromere", "NuMem", "Golgi")
_SPELLINGS = {"nuclear membrane": "numem", "centromeric": "centromere"}
_IMAGE = re.compile(r"(?:.*/)?(\d{5})\.(?:png|bmp|tiff?)", re.IGNORECASE)
_MASK = re.compile(r"(?:.*/)?(\d{5})_mask\.(?:png|bmp|tiff?)", re.IGNORECASE)
_SUBSETS: dict[str, Subset] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}


def find_root(tree: FileTree) -> str | None:
    """Folder of ``gt_training.csv``, with a trailing slash or empty; None where this is no I3A data set.

    Raises:
        UserError: several of them
    """
    if not any(_IMAGE.fullmatch(name) for name in tree.names):
        return None
    roots = [name.removesuffix("gt_training.csv") for name in tree.names if f"/{name}".endswith("/gt_training.csv")]
    if len(roots) > 1:
        places = ", ".join(root or "./" for root in roots)
        raise UserError(f"several I3A data sets in one place: {places}; give the folder of one of them")
    return roots[0] if roots else None


def read_labels(tree: FileTree, root: str) -> Labels:
    """Every labelled cell of the data set, in ID order."""
    labels = Labels()
    file = f"{root}gt_training.csv"
    patterns = Vocabulary("pattern", PATTERNS, _SPELLINGS, usual=_AS_PUBLISHED)
    table = read_table(tree, file, ",", ("Image ID", "Image class"), labels.faults, optional=("Intensity",))
    rows = index_rows(table, lambda row: _cell_id(row, labels.faults), labels.faults)
    images, masks = _files(tree, _IMAGE, labels), _files(tree, _MASK, labels)
    for cell_id, row in rows.items():
        pattern = patterns.read(row, "Image class", labels.faults)
        intensity = read_intensity(row, "Intensity", labels.faults)
        image = images.get(cell_id)
        if image is None:
            labels.fault(row.where, f"no image {cell_id}.png", "add the image, or remove the row")
        elif pattern is not None:
            mask = masks.get(cell_id)
            labels.listings.append(Listing(cell_id, None, pattern, intensity, None, image, mask, row.where))
    if rows:
        for cell_id in sorted((images.keys() | masks.keys()) - rows.keys()):
            labels.fault(
                images.get(cell_id) or masks[cell_id],
                "image without a label",
                f"add its row to {file}, or remove the image",
            )
        labels.given_split = _read_split(tree, f"{root}public_split.csv", rows, labels)
    labels.notes += patterns.notes()
    return labels


def _cell_id(row: Row, faults: list[Fault]) -> str | None:
    number = whole_number(row, "Image ID", faults)
    return None if number is None else f"{number:05d}"  # spreadsheets drop leading zeros


def _files(tree: FileTree, form: re.Pattern[str], labels: Labels) -> dict[str, str]:
    files: dict[str, str] = {}
    for name in tree.names:
        if found := form.fullmatch(name):
            if found[1] in files:
                labels.fault(name, f"the same ID as {files[found[1]]}", "remove one of the two")
            else:
                files[found[1]] = name
    return files


def _read_split(tree: FileTree, name: str, labelled: dict[str, Row], labels: Labels) -> dict[str, Subset] | None:
    if name not in tree:
        return None
    table = read_table(tree, name, ",", ("Image ID", "split"), labels.faults)
    rows = index_rows(table, lambda row: _cell_id(row, labels.faults), labels.faults)
    split: dict[str, Subset] = {}
    for cell_id, row in rows.items():
        subset = _SUBSETS.get(row["split"].lower())
        if subset is None:
            labels.fault(row.where, f"unknown split {row['split']!r}", "use train, val or test")
        elif cell_id not in labelled:
            labels.fault(row.where, f"cell {cell_id} has no label", "add it to gt_training.csv, or remove this row")
        else:
            split[cell_id] = subset
    if rows:
        for cell_id in labelled.keys() - rows.keys():
            labels.fault(
                labelled[cell_id].where, f"cell {cell_id} is not in {name}", "add its row there, or remove that file"
            )
    return split
