"""ICPR 2012 / MIVIA HEp-2: recognises its two forms, the contest's and Main_Dataset's, and reads the one that is there.

The contest's has ``training/`` and ``test/`` with ``NNN.png``, ``NNN_mask.png``, ``training.csv``
(``ID;intensity;width;height``) and ``gt_training.csv`` (``ID;pattern``); IDs restart in each split. Its ``cells.csv`` is the
only map from its cells to specimens.

Main_Dataset has complete slide images and the cells cut from them, in a folder per specimen: ``Images/NN/NN.csv``,
``Cells/Cell_Images/NN/NNN.png``, ``Cells/Cell_Masks/NN/NNN.png``. It lists more cells than the contest used; with the
contest's ``cells.csv`` beside it, exactly the contest's cells are read.
"""

import re
from collections import Counter
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from hep2flow.cells import OfficialSplit
from hep2flow.errors import UserError
from hep2flow.sources.csv_labels import LabelReader, Row, Vocabulary
from hep2flow.sources.file_tree import FileTree
from hep2flow.sources.listing import LabelledSize, Labels, Listing
from hep2flow.sources.published_counts import PATTERNS, SPECIMENS

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
_SPLITS: dict[str, OfficialSplit] = {"train": "train", "training": "train", "test": "test"}
_PUBLISHED_SPLITS = {specimen.number: specimen.split for specimen in SPECIMENS}
_IMAGE = re.compile(r"(\d+)\.(png|bmp|tiff?)", re.IGNORECASE)
_MASK = re.compile(r"(\d+)_mask\.(png|bmp|tiff?)", re.IGNORECASE)
_MAIN_MASK = re.compile(r"(\d+)(_mask)?\.(png|bmp|tiff?)", re.IGNORECASE)


class Root(NamedTuple):
    """Where the data set starts in the tree, with a trailing slash or empty, and its form."""

    prefix: str
    form: Literal["contest", "main"]


@dataclass(frozen=True)
class CellRow(Row):
    """One checked row of cells.csv."""

    split: OfficialSplit
    contest_id: int
    specimen: int
    original_id: int


def find_root(tree: FileTree) -> Root | None:
    """The data set's root in the tree: the tree itself or any folder in it; None where there is none.

    Raises:
        UserError: There are several.
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
    reader = _Reader(tree, labels, ";", root.prefix, Vocabulary(PATTERNS, _SPELLINGS))
    cells = reader.cells_csv()
    (reader.read_contest if root.form == "contest" else reader.read_main_dataset)(cells)
    labels.notes += reader.patterns.notes()
    if cells is None:
        labels.notes.append("no cells.csv in this source" + ("" if root.form == "main" else ": specimens are unknown"))
    return labels


@dataclass(frozen=True)
class _Reader(LabelReader):
    """Reads the files below the prefix, and adds what it finds to ``labels``."""

    prefix: str
    patterns: Vocabulary

    def cells_csv(self) -> list[CellRow] | None:
        """The good rows of ``cells.csv``; None where there is no such file."""
        labels, name = self.labels, f"{self.prefix}cells.csv"
        if name not in self.tree:
            return None
        cells = []
        for row in self.rows(name, CELLS_COLUMNS):
            if (split := _SPLITS.get(row["Set"].lower())) is None:
                labels.fault(row.where, f"unknown split {row['Set']!r} in column Set", "use training or test")
            columns = ("ICPR2012Contest_Cell_ID", "Image", "Original_cell_ID")
            numbers = [n for column in columns if (n := self.number(row, column)) is not None]
            if split is not None and len(numbers) == len(columns):
                cells.append(CellRow(row.file, row.number, row.values, split, *numbers))
        return cells

    def read_contest(self, cells: list[CellRow] | None) -> None:
        """The cells of both splits, with their specimens where there is a ``cells.csv``."""
        labels = self.labels
        for split, folder_name in SPLIT_FOLDERS.items():
            folder = f"{self.prefix}{folder_name}/"
            if not any(name.startswith(folder) for name in self.tree.names):
                labels.notes.append(f"no {folder} in this source")
                continue
            listings, labelled = self._read_split(folder, split)
            if cells is None:
                labels.listings += listings.values()
                continue
            by_id = self.index((c for c in cells if c.split == split), lambda cell: cell.contest_id)
            for number, listing in listings.items():
                if number in by_id:
                    info = listing.size.where if listing.size else listing.where
                    labels.listings.append(self._with_specimen(listing, info, by_id[number]))
                else:
                    what = f"ID {number} of {folder_name} is not in cells.csv"
                    labels.fault(listing.where, what, "add its row to cells.csv")
            for number in sorted(by_id.keys() - labelled) if labelled else ():
                fix = f"add its row in {folder}gt_{folder_name}.csv, or remove this row"
                labels.fault(by_id[number].where, f"ID {number} of {folder_name} has no label", fix)

    def _read_split(self, folder: str, split: OfficialSplit) -> tuple[dict[int, Listing], set[int]]:
        """The good cells of one split by ID, and every ID that has a label; none of them where a label file is unusable."""
        info_file, truth_file = f"{folder}{SPLIT_FOLDERS[split]}.csv", f"{folder}gt_{SPLIT_FOLDERS[split]}.csv"
        labels = self.labels
        info = self.numbered_rows(info_file, ("ID", "intensity", "width", "height"))
        truth = self.numbered_rows(truth_file, ("ID", "pattern"))
        images = self.number_files(_IMAGE, "number", folder)
        masks = self.number_files(_MASK, "number", folder)
        if not info or not truth:  # already a fault; one fault per cell would only hide it
            return {}, set()
        listings = {}
        for number, row in truth.items():
            pattern = self.patterns.read(row, "pattern", labels.faults)
            if (image := images.get(number)) is None:
                labels.fault(row.where, f"no image {folder}{number:03d}.png", "add the image, or remove the row")
            if number not in info:
                labels.fault(row.where, f"ID {number} is not in {info_file}", f"add its row to {info_file}")
                continue
            intensity = self.intensity(info[number], "intensity")
            size = self._size(info[number], "width", "height")
            if pattern is not None and image is not None:
                cell_id, mask = f"{split}-{number:03d}", masks.get(number)
                listings[number] = Listing(cell_id, split, pattern, intensity, None, image, mask, row.where, size)
        for number in sorted(info.keys() - truth.keys()):
            labels.fault(info[number].where, f"ID {number} is not in {truth_file}", f"add its row to {truth_file}")
        for number in sorted((images.keys() | masks.keys()) - truth.keys() - info.keys()):
            fix = f"add its rows to {info_file} and {truth_file}, or remove the image"
            labels.fault(images.get(number) or masks[number], "image without a label", fix)
        return listings, info.keys() | truth.keys()

    def _with_specimen(self, listing: Listing, intensity_where: str, cell: CellRow) -> Listing:
        """The listing with its specimen; a fault where cells.csv contradicts the cell's other label files."""
        pattern = self.patterns.read(cell, "Cell_class", self.labels.faults)
        intensity = self.intensity(cell, "Intensity")
        size = self._size(cell, "Cell_width", "Cell_height")
        for kind, here, where, there in (
            ("pattern", listing.pattern, listing.where, pattern),
            ("intensity", listing.intensity, intensity_where, intensity),
            ("size", listing.size, listing.size and listing.size.where, size),
        ):
            if here is not None and there is not None and here != there:
                what = f"{kind} {there} contradicts {here} in {where}"
                self.labels.fault(cell.where, what, "correct one of the two")
        return replace(listing, specimen_id=f"{cell.specimen:02d}")

    def _size(self, row: Row, *columns: str) -> LabelledSize | None:
        """The size that a row states in two columns, or None and a fault."""
        width, height = (self.number(row, column) for column in columns)
        return None if width is None or height is None else LabelledSize(width, height, row.where)

    def read_main_dataset(self, cells: list[CellRow] | None) -> None:
        """The cells of all specimens: those of ``cells.csv``, without it all that are not mitotic."""
        tree, prefix, labels = self.tree, self.prefix, self.labels
        contest = None if cells is None else self.index(cells, lambda c: (c.specimen, c.original_id))
        if contest is None:
            labels.notes.append("the official split is taken from the published specimen numbers")
        skipped: Counter[str] = Counter()
        unmatched = dict(contest or {})
        all_images = f"{prefix}Cells/Cell_Images/"
        folders = {name[len(all_images) :].split("/")[0] for name in tree.names if name.startswith(all_images)}
        for folder in sorted(filter(re.compile(r"\d+").fullmatch, folders), key=int):
            specimen, label_file = int(folder), f"{prefix}Images/{folder}/{folder}.csv"
            images = self.number_files(_IMAGE, "number", f"{all_images}{folder}/")
            masks = self.number_files(_MAIN_MASK, "number", f"{prefix}Cells/Cell_Masks/{folder}/")
            columns, optional = ("cell_ID", "intensity", "pattern"), ("object_type",)
            rows = self.numbered_rows(label_file, columns, optional)
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
                    labels.listings += self._list_cell(row, specimen, image, mask, cell)
            for number in sorted(images.keys() - rows.keys()):
                fix = f"add its row to {label_file}, or remove the image"
                labels.fault(images[number], "image without a label", fix)
        for (specimen, number), cell in unmatched.items():
            fix = f"add it below {prefix}Images and {prefix}Cells/Cell_Images, or remove this row"
            labels.fault(cell.where, f"cell {number} of specimen {specimen} has no label", fix)
        labels.notes += [f"{count} cells {why} were left out" for why, count in sorted(skipped.items())]

    def _list_cell(
        self, row: Row, specimen: int, image: str | None, mask: str | None, cell: CellRow | None
    ) -> list[Listing]:
        """The cell of one row, or none and its faults."""
        split = cell.split if cell else _PUBLISHED_SPLITS.get(specimen)
        pattern = self.patterns.read(row, "pattern", self.labels.faults)
        intensity = self.intensity(row, "intensity")
        if split is None:
            self.labels.fault(row.where, f"specimen {specimen} is not one of the 28 published", "add cells.csv")
        if split is None or pattern is None or image is None:
            return []
        specimen_id = f"{specimen:02d}"
        number = f"{cell.contest_id:03d}" if cell else f"{specimen_id}-{int(row['cell_ID']):03d}"
        size = self._size(cell, "Cell_width", "Cell_height") if cell else None
        listing = Listing(f"{split}-{number}", split, pattern, intensity, specimen_id, image, mask, row.where, size)
        return [self._with_specimen(listing, row.where, cell) if cell else listing]
