"""The Main_Dataset form of ICPR 2012: slide images and the cells cut from them, in a folder per specimen.

These are ``Images/NN/NN.csv``, ``Cells/Cell_Images/NN/NNN.png``, ``Cells/Cell_Masks/NN/NNN.png``. It lists more cells than
the contest used; with the contest's ``cells.csv`` beside it, exactly the contest's cells are read.
"""

import re
from collections import Counter

from hep2flow.sources.csv_labels import Row
from hep2flow.sources.icpr2012_labels import CellRow, Icpr2012Reader
from hep2flow.sources.listing import Listing
from hep2flow.sources.published_counts import SPECIMENS

_PUBLISHED_SPLITS = {specimen.number: specimen.split for specimen in SPECIMENS}
_IMAGE = re.compile(r"(\d+)\.(png|bmp|tiff?)", re.IGNORECASE)
_MASK = re.compile(r"(\d+)(_mask)?\.(png|bmp|tiff?)", re.IGNORECASE)


class MainDatasetReader(Icpr2012Reader):
    """Reads the Main_Dataset form."""

    def read(self, cells: list[CellRow] | None) -> None:
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
            masks = self.number_files(_MASK, "number", f"{prefix}Cells/Cell_Masks/{folder}/")
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
        size = self.size(cell, "Cell_width", "Cell_height") if cell else None
        listing = Listing(f"{split}-{number}", split, pattern, intensity, specimen_id, image, mask, row.where, size)
        return [self.with_specimen(listing, row.where, cell) if cell else listing]
