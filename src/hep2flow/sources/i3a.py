"""I3A Task 1 (the contest of ICIP 2013, ICPR 2014 and ICPR 2016).

``NNNNN.png``, ``NNNNN_Mask.png`` (only in the original distribution), ``gt_training.csv`` (``Image ID,Image class``, in
some copies ``Intensity``), and optionally ``public_split.csv`` (``Image ID,split``). Images may lie in folders below.
"""

import re

from hep2flow.errors import UserError
from hep2flow.sources.csv_labels import LabelReader, Row, Vocabulary
from hep2flow.sources.file_tree import FileTree
from hep2flow.sources.listing import Labels, Listing, Subset

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
        UserError: There are several.
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
    labels, file = Labels(), f"{root}gt_training.csv"
    reader = LabelReader(tree, labels, ",")
    patterns = Vocabulary(PATTERNS, _SPELLINGS, usual=_AS_PUBLISHED)
    rows = reader.numbered_rows(file, ("Image ID", "Image class"), ("Intensity",))
    images, masks = reader.number_files(_IMAGE, "ID"), reader.number_files(_MASK, "ID")
    for number, row in rows.items():
        pattern = patterns.read(row, "Image class", labels.faults)
        intensity, cell_id = reader.intensity(row, "Intensity"), _cell_id(number)
        if (image := images.get(number)) is None:
            labels.fault(row.where, f"no image {cell_id}.png", "add the image, or remove the row")
        elif pattern is not None:
            mask = masks.get(number)
            labels.listings.append(Listing(cell_id, None, pattern, intensity, None, image, mask, row.where))
    if rows:
        for number in sorted((images.keys() | masks.keys()) - rows.keys()):
            fix = f"add its row to {file}, or remove the image"
            labels.fault(images.get(number) or masks[number], "image without a label", fix)
        labels.given_split = _read_split(reader, f"{root}public_split.csv", rows)
    labels.notes += patterns.notes()
    return labels


def _cell_id(number: int) -> str:
    return f"{number:05d}"  # spreadsheets drop the leading zeros


def _read_split(reader: LabelReader, file: str, labelled: dict[int, Row]) -> dict[str, Subset] | None:
    labels = reader.labels
    if file not in reader.tree:
        return None
    rows = reader.numbered_rows(file, ("Image ID", "split"))
    split: dict[str, Subset] = {}
    for number, row in rows.items():
        if (subset := _SUBSETS.get(row["split"].lower())) is None:
            labels.fault(row.where, f"unknown split {row['split']!r}", "use train, val or test")
        elif number not in labelled:
            fix = "add it to gt_training.csv, or remove this row"
            labels.fault(row.where, f"cell {_cell_id(number)} has no label", fix)
        else:
            split[_cell_id(number)] = subset
    if rows:
        for number in labelled.keys() - rows.keys():
            fix = "add its row there, or remove that file"
            labels.fault(labelled[number].where, f"cell {_cell_id(number)} is not in {file}", fix)
    return split
