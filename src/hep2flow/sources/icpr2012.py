"""ICPR 2012 / MIVIA HEp-2: the contest's form and the Main_Dataset form.

Contest: ``training/`` and ``test/`` with ``NNN.png``, ``NNN_mask.png``, ``training.csv``
(``ID;intensity;width;height``) and ``gt_training.csv`` (``ID;pattern``), and ``cells.csv``, the only map from cells to
specimens. IDs restart in each split.
Main_Dataset: ``Images/NN/NN.csv``, ``Cells/Cell_Images/NN/NNN.png``, ``Cells/Cell_Masks/NN/NNN.png``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from hep2flow.cells import OfficialSplit
from hep2flow.errors import Fault, UserError
from hep2flow.sources.csv_labels import Row, Vocabulary, index_rows, read_intensity, read_table, whole_number
from hep2flow.sources.file_tree import FileTree
from hep2flow.sources.listing import LabelledSize, Labels, Listing
from hep2flow.sources.published_counts import PATTERNS, SPECIMENS

NAME = "icpr2012"
SYNTHETIC_MARKER = "SYNTHETIC.txt"
LOOKED_FOR = "training/gt_training.csv or test/gt_test.csv (contest), or Cells/Cell_Images (Main_Dataset)"
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

_SPELLINGS = {"cytoplasmic": "cytoplasmatic", "centromeric": "centromere"}
_IMAGE = re.compile(r"(\d+)\.(png|bmp|tiff?)", re.IGNORECASE)
_MASK = re.compile(r"(\d+)(_mask)?\.(png|bmp|tiff?)", re.IGNORECASE)
_MASK_BESIDE_IMAGE = re.compile(r"(\d+)_mask\.(png|bmp|tiff?)", re.IGNORECASE)


@dataclass(frozen=True)
class Root:
    """Where the data set begins in the tree, with a trailing slash or empty, and its form."""

    prefix: str
    form: Literal["contest", "main"]


@dataclass(frozen=True)
class _CellRow:
    """One checked row of cells.csv."""

    row: Row
    split: OfficialSplit
    contest_id: int
    specimen: int
    original_id: int

    @property
    def where(self) -> str:
        return self.row.where


def find_root(tree: FileTree) -> Root | None:
    """The data set's root in the tree: the tree itself or any folder in it; None where there is none.

    Raises:
        UserError: several of them
    """
    roots: set[Root] = set()
    for name in tree.names:
        if found := re.fullmatch(r"(|.*/)(training|test)/(gt_)?\2\.csv", name):
            roots.add(Root(found[1], "contest"))
        elif found := re.fullmatch(r"(|.*/)Cells/Cell_Images/.*", name):
            roots.add(Root(found[1], "main"))
    if len(roots) > 1:
        places = ", ".join(sorted(f"{root.prefix or './'} ({root.form} form)" for root in roots))
        raise UserError(f"several ICPR 2012 data sets in one place: {places}; give the folder of one of them")
    return next(iter(roots), None)


def read_labels(tree: FileTree, root: Root) -> Labels:
    """Every labelled cell of the data set."""
    labels = Labels(synthetic=f"{root.prefix}{SYNTHETIC_MARKER}" in tree)
    patterns = Vocabulary("pattern", PATTERNS, _SPELLINGS)
    cells = _read_cells_csv(tree, root, labels)
    if root.form == "contest":
        _read_contest(tree, root, cells, patterns, labels)
    else:
        _read_main(tree, root, cells, patterns, labels)
    labels.notes += patterns.notes()
    if cells is None:
        labels.notes.append("no cells.csv in this source" + ("" if root.form == "main" else ": specimens are unknown"))
    return labels


def _read_cells_csv(tree: FileTree, root: Root, labels: Labels) -> list[_CellRow] | None:
    name = f"{root.prefix}cells.csv"
    if name not in tree:
        return None
    cells = []
    for row in read_table(tree, name, ";", CELLS_COLUMNS, labels.faults):
        split = _split(row, labels.faults)
        contest_id = whole_number(row, "ICPR2012Contest_Cell_ID", labels.faults)
        specimen = whole_number(row, "Image", labels.faults)
        original_id = whole_number(row, "Original_cell_ID", labels.faults)
        if split is not None and contest_id is not None and specimen is not None and original_id is not None:
            cells.append(_CellRow(row, split, contest_id, specimen, original_id))
    return cells


def _split(row: Row, faults: list[Fault]) -> OfficialSplit | None:
    value = row["Set"].lower()
    if value in ("train", "training"):
        return "train"
    if value == "test":
        return "test"
    faults.append(Fault(row.where, f"unknown split {row['Set']!r} in column Set", "use training or test"))
    return None


def _read_contest(
    tree: FileTree, root: Root, cells: list[_CellRow] | None, patterns: Vocabulary, labels: Labels
) -> None:
    for split, folder_name in SPLIT_FOLDERS.items():
        folder = f"{root.prefix}{folder_name}/"
        if not any(name.startswith(folder) for name in tree.names):
            labels.notes.append(f"no {folder} in this source")
            continue
        listings, labelled = _contest_listings(tree, folder, split, patterns, labels)
        if cells is None:
            labels.listings += listings.values()
            continue
        by_id = index_rows((c for c in cells if c.split == split), lambda cell: cell.contest_id, labels.faults)
        for number, listing in listings.items():
            if number in by_id:
                info = listing.size.where if listing.size else listing.where
                labels.listings.append(_with_specimen(listing, info, by_id[number], patterns, labels))
            else:
                labels.fault(
                    listing.where, f"ID {number} of {folder_name} is not in cells.csv", "add its row to cells.csv"
                )
        for number in sorted(by_id.keys() - labelled) if labelled else ():
            labels.fault(
                by_id[number].where,
                f"ID {number} of {folder_name} has no label",
                f"add its row in {folder}gt_{folder_name}.csv, or remove this row",
            )


def _contest_listings(
    tree: FileTree, folder: str, split: OfficialSplit, patterns: Vocabulary, labels: Labels
) -> tuple[dict[int, Listing], set[int]]:
    """The good cells of one split by ID, and every ID that has a label; none of them where a label file is unusable."""
    name = SPLIT_FOLDERS[split]
    info_file, truth_file = f"{folder}{name}.csv", f"{folder}gt_{name}.csv"
    info = read_table(tree, info_file, ";", ("ID", "intensity", "width", "height"), labels.faults)
    truth = read_table(tree, truth_file, ";", ("ID", "pattern"), labels.faults)
    info_by_id = index_rows(info, lambda row: whole_number(row, "ID", labels.faults), labels.faults)
    truth_by_id = index_rows(truth, lambda row: whole_number(row, "ID", labels.faults), labels.faults)
    images = _numbered(tree, folder, _IMAGE, labels)
    masks = _numbered(tree, folder, _MASK_BESIDE_IMAGE, labels)
    if not info_by_id or not truth_by_id:  # its fault is told; one fault per cell would only hide it
        return {}, set()

    listings = {}
    for number, row in truth_by_id.items():
        pattern = patterns.read(row, "pattern", labels.faults)
        image = images.get(number)
        if image is None:
            labels.fault(row.where, f"no image {folder}{number:03d}.png", "add the image, or remove the row")
        if number not in info_by_id:
            labels.fault(row.where, f"ID {number} is not in {info_file}", f"add its row to {info_file}")
            continue
        intensity = read_intensity(info_by_id[number], "intensity", labels.faults)
        size = _size(info_by_id[number], "width", "height", labels.faults)
        if pattern is not None and image is not None:
            cell_id = f"{split}-{number:03d}"
            listings[number] = Listing(
                cell_id, split, pattern, intensity, None, image, masks.get(number), row.where, size
            )
    for number in sorted(info_by_id.keys() - truth_by_id.keys()):
        labels.fault(info_by_id[number].where, f"ID {number} is not in {truth_file}", f"add its row to {truth_file}")
    for number in sorted((images.keys() | masks.keys()) - truth_by_id.keys() - info_by_id.keys()):
        labels.fault(
            images.get(number) or masks[number],
            "image without a label",
            f"add its rows to {info_file} and {truth_file}, or remove the image",
        )
    return listings, info_by_id.keys() | truth_by_id.keys()


def _with_specimen(
    listing: Listing, intensity_where: str, cell: _CellRow, patterns: Vocabulary, labels: Labels
) -> Listing:
    """The listing with its specimen; a fault where cells.csv contradicts the split's own label files."""
    pattern = patterns.read(cell.row, "Cell_class", labels.faults)
    intensity = read_intensity(cell.row, "Intensity", labels.faults)
    size = _size(cell.row, "Cell_width", "Cell_height", labels.faults)
    for kind, here, where, there in (
        ("pattern", listing.pattern, listing.where, pattern),
        ("intensity", listing.intensity, intensity_where, intensity),
    ):
        if here is not None and there is not None and here != there:
            labels.fault(cell.row.where, f"{kind} {there} contradicts {here} in {where}", "correct one of the two")
    if size and listing.size and (size.width, size.height) != (listing.size.width, listing.size.height):
        labels.fault(
            cell.row.where,
            f"size {size.width} x {size.height} contradicts {listing.size.width} x {listing.size.height}"
            f" in {listing.size.where}",
            "correct one of the two",
        )
    return replace(listing, specimen_id=f"{cell.specimen:02d}")


def _read_main(tree: FileTree, root: Root, cells: list[_CellRow] | None, patterns: Vocabulary, labels: Labels) -> None:
    contest = None
    if cells is not None:
        contest = index_rows(cells, lambda cell: (cell.specimen, cell.original_id), labels.faults)
    else:
        labels.notes.append("the official split is taken from the published specimen numbers")
    published = {specimen.number: specimen.split for specimen in SPECIMENS}
    folders = _specimen_folders(tree.names, f"{root.prefix}Cells/Cell_Images/")
    left_out: Counter[str] = Counter()
    matched: set[tuple[int, int]] = set()
    unusable: set[int] = set()  # specimens whose label file is; one fault per cell would only hide that
    for folder, specimen in sorted(folders.items(), key=lambda item: item[1]):
        image_folder = f"{root.prefix}Cells/Cell_Images/{folder}/"
        label_file = f"{root.prefix}Images/{folder}/{folder}.csv"
        table = read_table(
            tree, label_file, ";", ("cell_ID", "intensity", "pattern"), labels.faults, optional=("object_type",)
        )
        by_id = index_rows(table, lambda row: whole_number(row, "cell_ID", labels.faults), labels.faults)
        images = _numbered(tree, image_folder, _IMAGE, labels)
        masks = _numbered(tree, f"{root.prefix}Cells/Cell_Masks/{folder}/", _MASK, labels)
        if not by_id:
            unusable.add(specimen)
            continue
        for number, row in by_id.items():
            cell = contest.get((specimen, number)) if contest is not None else None
            if contest is not None and cell is None:
                left_out["that cells.csv does not list"] += 1
                continue
            if contest is None and "mito" in row["object_type"].lower():
                left_out["that are mitotic"] += 1
                continue
            matched.add((specimen, number))
            split = cell.split if cell else published.get(specimen)
            pattern = patterns.read(row, "pattern", labels.faults)
            intensity = read_intensity(row, "intensity", labels.faults)
            if split is None:
                labels.fault(row.where, f"specimen {specimen} is not one of the 28 published", "add cells.csv")
            if number not in images:
                labels.fault(row.where, f"no image {image_folder}{number:03d}.png", "add the image, or remove the row")
            if split is None or pattern is None or number not in images:
                continue
            listing = Listing(
                f"{split}-{cell.contest_id:03d}" if cell else f"{split}-{specimen:02d}-{number:03d}",
                split,
                pattern,
                intensity,
                f"{specimen:02d}",
                images[number],
                masks.get(number),
                row.where,
                _size(cell.row, "Cell_width", "Cell_height", labels.faults) if cell else None,
            )
            labels.listings.append(_with_specimen(listing, row.where, cell, patterns, labels) if cell else listing)
        for number in sorted(images.keys() - by_id.keys()):
            labels.fault(images[number], "image without a label", f"add its row to {label_file}, or remove the image")
    for (specimen, number), cell in (contest or {}).items():
        if (specimen, number) not in matched and specimen not in unusable:
            labels.fault(
                cell.where,
                f"cell {number} of specimen {specimen} has no label",
                f"add it below {root.prefix}Images and {root.prefix}Cells/Cell_Images, or remove this row",
            )
    labels.notes += [f"{count} cells {why} were left out" for why, count in sorted(left_out.items())]


def _specimen_folders(names: Iterable[str], prefix: str) -> dict[str, int]:
    """Folder name -> specimen number, for the folders below ``prefix`` that are numbers."""
    folders = {name[len(prefix) :].split("/")[0] for name in names if name.startswith(prefix)}
    return {folder: int(folder) for folder in folders if re.fullmatch(r"\d+", folder)}


def _numbered(tree: FileTree, folder: str, form: re.Pattern[str], labels: Labels) -> dict[int, str]:
    """Number -> file, for the files of a folder whose name has the form; a number that is there twice is a fault."""
    files: dict[int, str] = {}
    for name in tree.names:
        if name.startswith(folder) and (found := form.fullmatch(name[len(folder) :])):
            number = int(found[1])
            if number in files:
                labels.fault(name, f"the same number as {files[number]}", "remove one of the two")
            else:
                files[number] = name
    return files


def _size(row: Row, width: str, height: str, faults: list[Fault]) -> LabelledSize | None:
    w, h = whole_number(row, width, faults), whole_number(row, height, faults)
    return None if w is None or h is None else LabelledSize(w, h, row.where)
