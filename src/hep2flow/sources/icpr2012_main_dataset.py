"""The Main_Dataset form of ICPR 2012: complete slide images and the cells cut from them, in a folder per specimen.

``Images/NN/NN.csv``, ``Cells/Cell_Images/NN/NNN.png``, ``Cells/Cell_Masks/NN/NNN.png``. It lists more cells than the contest
used; with the contest's ``cells.csv`` beside it, exactly the contest's cells are read.
"""

import re
from collections import Counter

from hep2flow.sources.csv_labels import Row, Vocabulary, index_rows, number_rows, read_intensity
from hep2flow.sources.file_tree import FileTree
from hep2flow.sources.icpr2012_contest import CellRow, read_size, with_specimen
from hep2flow.sources.listing import Labels, Listing
from hep2flow.sources.published_counts import SPECIMENS

_IMAGE = re.compile(r"(\d+)\.(png|bmp|tiff?)", re.IGNORECASE)
_MASK = re.compile(r"(\d+)(_mask)?\.(png|bmp|tiff?)", re.IGNORECASE)
_PUBLISHED_SPLITS = {specimen.number: specimen.split for specimen in SPECIMENS}


def read_main_dataset(
    tree: FileTree, prefix: str, cells: list[CellRow] | None, patterns: Vocabulary, labels: Labels
) -> None:
    """Add the cells of all specimens to ``labels``: those of ``cells.csv``, without it all that are not mitotic."""
    contest = None if cells is None else index_rows(cells, lambda c: (c.specimen, c.original_id), labels.faults)
    if contest is None:
        labels.notes.append("the official split is taken from the published specimen numbers")
    skipped: Counter[str] = Counter()
    unmatched = dict(contest or {})
    all_images = f"{prefix}Cells/Cell_Images/"
    folders = {name[len(all_images) :].split("/")[0] for name in tree.names if name.startswith(all_images)}
    for folder in sorted(filter(re.compile(r"\d+").fullmatch, folders), key=int):
        specimen, label_file = int(folder), f"{prefix}Images/{folder}/{folder}.csv"
        images = labels.number_files(tree, _IMAGE, "number", f"{all_images}{folder}/")
        masks = labels.number_files(tree, _MASK, "number", f"{prefix}Cells/Cell_Masks/{folder}/")
        columns, optional = ("cell_ID", "intensity", "pattern"), ("object_type",)
        rows = number_rows(tree, label_file, ";", columns, labels.faults, optional)
        if not rows:  # already a fault; one fault per cell would only hide it
            unmatched = {key: cell for key, cell in unmatched.items() if key[0] != specimen}
            continue
        for number, row in rows.items():
            cell = contest.get((specimen, number)) if contest else None
            if contest is not None and cell is None:
                skipped["that cells.csv does not list"] += 1
            elif contest is None and "mito" in row["object_type"].lower():
                skipped["that are mitotic"] += 1
            else:
                unmatched.pop((specimen, number), None)
                if number not in images:
                    what = f"no image {all_images}{folder}/{number:03d}.png"
                    labels.fault(row.where, what, "add the image, or remove the row")
                image, mask = images.get(number), masks.get(number)
                labels.listings += _list_cell(row, specimen, image, mask, cell, patterns, labels)
        for number in sorted(images.keys() - rows.keys()):
            fix = f"add its row to {label_file}, or remove the image"
            labels.fault(images[number], "image without a label", fix)
    for (specimen, number), cell in unmatched.items():
        fix = f"add it below {prefix}Images and {prefix}Cells/Cell_Images, or remove this row"
        labels.fault(cell.where, f"cell {number} of specimen {specimen} has no label", fix)
    labels.notes += [f"{count} cells {why} were left out" for why, count in sorted(skipped.items())]


def _list_cell(
    row: Row,
    specimen: int,
    image: str | None,
    mask: str | None,
    cell: CellRow | None,
    patterns: Vocabulary,
    labels: Labels,
) -> list[Listing]:
    """The cell of one row, or none and its faults."""
    split = cell.split if cell else _PUBLISHED_SPLITS.get(specimen)
    pattern = patterns.read(row, "pattern", labels.faults)
    intensity = read_intensity(row, "intensity", labels.faults)
    if split is None:
        labels.fault(row.where, f"specimen {specimen} is not one of the 28 published", "add cells.csv")
    if split is None or pattern is None or image is None:
        return []
    specimen_id = f"{specimen:02d}"
    if cell is None:
        cell_id = f"{split}-{specimen_id}-{int(row['cell_ID']):03d}"
        return [Listing(cell_id, split, pattern, intensity, specimen_id, image, mask, row.where)]
    cell_id, size = f"{split}-{cell.contest_id:03d}", read_size(cell, "Cell_width", "Cell_height", labels.faults)
    listing = Listing(cell_id, split, pattern, intensity, specimen_id, image, mask, row.where, size)
    return [with_specimen(listing, row.where, cell, patterns, labels)]
