"""The Main_Dataset form of ICPR 2012: complete slide images and the cells cut from them, in a folder per specimen.

``Images/NN/NN.csv``, ``Cells/Cell_Images/NN/NNN.png``, ``Cells/Cell_Masks/NN/NNN.png``. It lists more cells than the contest
used; with the contest's ``cells.csv`` beside it, exactly the contest's cells are read.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

from hep2flow.sources.csv_labels import Row, Vocabulary, index_rows, number_rows, read_intensity
from hep2flow.sources.file_tree import FileTree
from hep2flow.sources.icpr2012_contest import CellRow, read_size, with_specimen
from hep2flow.sources.listing import Labels, Listing
from hep2flow.sources.published_counts import SPECIMENS

_IMAGE = re.compile(r"(\d+)\.(png|bmp|tiff?)", re.IGNORECASE)
_MASK = re.compile(r"(\d+)(_mask)?\.(png|bmp|tiff?)", re.IGNORECASE)
_PUBLISHED_SPLITS = {specimen.number: specimen.split for specimen in SPECIMENS}


@dataclass(frozen=True)
class _SpecimenFiles:
    """The files of one specimen by cell number."""

    specimen: int
    image_folder: str
    label_file: str
    images: dict[int, str]
    masks: dict[int, str]


def read_main_dataset(
    tree: FileTree, prefix: str, cells: list[CellRow] | None, patterns: Vocabulary, labels: Labels
) -> None:
    """Add the cells of all specimens to ``labels``: those of ``cells.csv``, without it all that are not mitotic."""
    contest = None if cells is None else index_rows(cells, lambda c: (c.specimen, c.original_id), labels.faults)
    if contest is None:
        labels.notes.append("the official split is taken from the published specimen numbers")
    skipped: Counter[str] = Counter()
    unmatched = dict(contest or {})
    for files in _specimens(tree, prefix, labels):
        columns, optional = ("cell_ID", "intensity", "pattern"), ("object_type",)
        rows = number_rows(tree, files.label_file, ";", columns, labels.faults, optional)
        if not rows:  # already a fault; one fault per cell would only hide it
            unmatched = {key: cell for key, cell in unmatched.items() if key[0] != files.specimen}
            continue
        for number, row in rows.items():
            cell = contest.get((files.specimen, number)) if contest else None
            if contest is not None and cell is None:
                skipped["that cells.csv does not list"] += 1
            elif contest is None and "mito" in row["object_type"].lower():
                skipped["that are mitotic"] += 1
            else:
                unmatched.pop((files.specimen, number), None)
                labels.listings += _list_cell(number, row, files, cell, patterns, labels)
        for number in sorted(files.images.keys() - rows.keys()):
            fix = f"add its row to {files.label_file}, or remove the image"
            labels.fault(files.images[number], "image without a label", fix)
    for (specimen, number), cell in unmatched.items():
        fix = f"add it below {prefix}Images and {prefix}Cells/Cell_Images, or remove this row"
        labels.fault(cell.where, f"cell {number} of specimen {specimen} has no label", fix)
    labels.notes += [f"{count} cells {why} were left out" for why, count in sorted(skipped.items())]


def _specimens(tree: FileTree, prefix: str, labels: Labels) -> list[_SpecimenFiles]:
    """The numbered folders of cell images, in the order of their numbers."""
    all_images, all_masks = f"{prefix}Cells/Cell_Images/", f"{prefix}Cells/Cell_Masks/"
    folders = {name[len(all_images) :].split("/")[0] for name in tree.names if name.startswith(all_images)}
    return [
        _SpecimenFiles(
            specimen=int(folder),
            image_folder=(image_folder := f"{all_images}{folder}/"),
            label_file=f"{prefix}Images/{folder}/{folder}.csv",
            images=labels.number_files(tree, _IMAGE, "number", image_folder),
            masks=labels.number_files(tree, _MASK, "number", f"{all_masks}{folder}/"),
        )
        for folder in sorted(filter(re.compile(r"\d+").fullmatch, folders), key=int)
    ]


def _list_cell(
    number: int, row: Row, files: _SpecimenFiles, cell: CellRow | None, patterns: Vocabulary, labels: Labels
) -> list[Listing]:
    """The cell of one row, or none and its faults."""
    split = cell.split if cell else _PUBLISHED_SPLITS.get(files.specimen)
    pattern = patterns.read(row, "pattern", labels.faults)
    intensity = read_intensity(row, "intensity", labels.faults)
    image, mask = files.images.get(number), files.masks.get(number)
    if split is None:
        labels.fault(row.where, f"specimen {files.specimen} is not one of the 28 published", "add cells.csv")
    if image is None:
        labels.fault(row.where, f"no image {files.image_folder}{number:03d}.png", "add the image, or remove the row")
    if split is None or pattern is None or image is None:
        return []
    specimen_id = f"{files.specimen:02d}"
    if cell is None:
        cell_id = f"{split}-{specimen_id}-{number:03d}"
        return [Listing(cell_id, split, pattern, intensity, specimen_id, image, mask, row.where)]
    cell_id, size = f"{split}-{cell.contest_id:03d}", read_size(cell, "Cell_width", "Cell_height", labels.faults)
    listing = Listing(cell_id, split, pattern, intensity, specimen_id, image, mask, row.where, size)
    return [with_specimen(listing, row.where, cell, patterns, labels)]
