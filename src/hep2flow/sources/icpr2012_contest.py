"""The contest's form of ICPR 2012, and its ``cells.csv``, the only map from its cells to specimens.

``training/`` and ``test/`` with ``NNN.png``, ``NNN_mask.png``, ``training.csv`` (``ID;intensity;width;height``) and
``gt_training.csv`` (``ID;pattern``). IDs restart in each split.
"""

import re
from dataclasses import dataclass, replace

from hep2flow.cells import OfficialSplit
from hep2flow.errors import Fault
from hep2flow.sources.csv_labels import Row, Vocabulary, index_rows, number_rows, read_intensity, read_number, read_rows
from hep2flow.sources.file_tree import FileTree
from hep2flow.sources.listing import LabelledSize, Labels, Listing

CELLS_COLUMNS = (
    "ICPR2012Contest_Cell_ID",
    "Set",
    "Image",
    "Intensity",
    "Original_cell_ID",
    "Cell_class",
    "Cell_width",
    "Cell_height",
)
SPLIT_FOLDERS: dict[OfficialSplit, str] = {"train": "training", "test": "test"}

_SPLITS: dict[str, OfficialSplit] = {"train": "train", "training": "train", "test": "test"}
_IMAGE = re.compile(r"(\d+)\.(png|bmp|tiff?)", re.IGNORECASE)
_MASK = re.compile(r"(\d+)_mask\.(png|bmp|tiff?)", re.IGNORECASE)


@dataclass(frozen=True)
class CellRow(Row):
    """One checked row of cells.csv."""

    split: OfficialSplit
    contest_id: int
    specimen: int
    original_id: int


def read_cells_csv(tree: FileTree, prefix: str, labels: Labels) -> list[CellRow] | None:
    """The good rows of ``cells.csv``; None where there is no such file."""
    name = f"{prefix}cells.csv"
    if name not in tree:
        return None
    cells = []
    for row in read_rows(tree, name, ";", CELLS_COLUMNS, labels.faults):
        split = _SPLITS.get(row["Set"].lower())
        if split is None:
            labels.fault(row.where, f"unknown split {row['Set']!r} in column Set", "use training or test")
        columns = ("ICPR2012Contest_Cell_ID", "Image", "Original_cell_ID")
        numbers = [n for column in columns if (n := read_number(row, column, labels.faults)) is not None]
        if split is not None and len(numbers) == len(columns):
            cells.append(CellRow(row.file, row.number, row.values, split, *numbers))
    return cells


def read_contest(
    tree: FileTree, prefix: str, cells: list[CellRow] | None, patterns: Vocabulary, labels: Labels
) -> None:
    """Add the cells of both splits to ``labels``, with their specimens where there is a ``cells.csv``."""
    for split, folder_name in SPLIT_FOLDERS.items():
        folder = f"{prefix}{folder_name}/"
        if not any(name.startswith(folder) for name in tree.names):
            labels.notes.append(f"no {folder} in this source")
            continue
        listings, labelled = _read_split(tree, folder, split, patterns, labels)
        if cells is None:
            labels.listings += listings.values()
            continue
        by_id = index_rows((c for c in cells if c.split == split), lambda cell: cell.contest_id, labels.faults)
        for number, listing in listings.items():
            if number in by_id:
                info = listing.size.where if listing.size else listing.where
                labels.listings.append(with_specimen(listing, info, by_id[number], patterns, labels))
            else:
                what = f"ID {number} of {folder_name} is not in cells.csv"
                labels.fault(listing.where, what, "add its row to cells.csv")
        for number in sorted(by_id.keys() - labelled) if labelled else ():
            fix = f"add its row in {folder}gt_{folder_name}.csv, or remove this row"
            labels.fault(by_id[number].where, f"ID {number} of {folder_name} has no label", fix)


def _read_split(
    tree: FileTree, folder: str, split: OfficialSplit, patterns: Vocabulary, labels: Labels
) -> tuple[dict[int, Listing], set[int]]:
    """The good cells of one split by ID, and every ID that has a label; none of them where a label file is unusable."""
    info_file, truth_file = f"{folder}{SPLIT_FOLDERS[split]}.csv", f"{folder}gt_{SPLIT_FOLDERS[split]}.csv"
    faults = labels.faults
    info = number_rows(tree, info_file, ";", ("ID", "intensity", "width", "height"), faults)
    truth = number_rows(tree, truth_file, ";", ("ID", "pattern"), faults)
    images = labels.number_files(tree, _IMAGE, "number", folder)
    masks = labels.number_files(tree, _MASK, "number", folder)
    if not info or not truth:  # already a fault; one fault per cell would only hide it
        return {}, set()

    listings = {}
    for number, row in truth.items():
        pattern = patterns.read(row, "pattern", faults)
        image = images.get(number)
        if image is None:
            labels.fault(row.where, f"no image {folder}{number:03d}.png", "add the image, or remove the row")
        if number not in info:
            labels.fault(row.where, f"ID {number} is not in {info_file}", f"add its row to {info_file}")
            continue
        intensity = read_intensity(info[number], "intensity", faults)
        size = read_size(info[number], "width", "height", faults)
        if pattern is not None and image is not None:
            cell_id, mask = f"{split}-{number:03d}", masks.get(number)
            listings[number] = Listing(cell_id, split, pattern, intensity, None, image, mask, row.where, size)
    for number in sorted(info.keys() - truth.keys()):
        labels.fault(info[number].where, f"ID {number} is not in {truth_file}", f"add its row to {truth_file}")
    for number in sorted((images.keys() | masks.keys()) - truth.keys() - info.keys()):
        fix = f"add its rows to {info_file} and {truth_file}, or remove the image"
        labels.fault(images.get(number) or masks[number], "image without a label", fix)
    return listings, info.keys() | truth.keys()


def with_specimen(
    listing: Listing, intensity_where: str, cell: CellRow, patterns: Vocabulary, labels: Labels
) -> Listing:
    """The listing with its specimen; a fault where cells.csv contradicts the cell's other label files."""
    pattern = patterns.read(cell, "Cell_class", labels.faults)
    intensity = read_intensity(cell, "Intensity", labels.faults)
    size = read_size(cell, "Cell_width", "Cell_height", labels.faults)
    for kind, here, where, there in (
        ("pattern", listing.pattern, listing.where, pattern),
        ("intensity", listing.intensity, intensity_where, intensity),
        ("size", listing.size, listing.size and listing.size.where, size),
    ):
        if here is not None and there is not None and here != there:
            labels.fault(cell.where, f"{kind} {there} contradicts {here} in {where}", "correct one of the two")
    return replace(listing, specimen_id=f"{cell.specimen:02d}")


def read_size(row: Row, width_column: str, height_column: str, faults: list[Fault]) -> LabelledSize | None:
    """The size that a row states, or None and a fault."""
    width, height = read_number(row, width_column, faults), read_number(row, height_column, faults)
    return None if width is None or height is None else LabelledSize(width, height, row.where)
