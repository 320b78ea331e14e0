"""The contest's form of ICPR 2012: ``training/`` and ``test/``, each with images, masks and two label files.

These are ``NNN.png``, ``NNN_mask.png``, ``training.csv`` (``ID;intensity;width;height``) and ``gt_training.csv``
(``ID;pattern``); IDs restart in each split.
"""

import re

from hep2flow.cells import OfficialSplit
from hep2flow.sources.icpr2012_labels import CellRow, Icpr2012Reader
from hep2flow.sources.listing import Listing

SPLIT_FOLDERS: dict[OfficialSplit, str] = {"train": "training", "test": "test"}
_IMAGE = re.compile(r"(\d+)\.(png|bmp|tiff?)", re.IGNORECASE)
_MASK = re.compile(r"(\d+)_mask\.(png|bmp|tiff?)", re.IGNORECASE)


class ContestReader(Icpr2012Reader):
    """Reads the contest's form."""

    def read(self, cells: list[CellRow] | None) -> None:
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
                    labels.listings.append(self.with_specimen(listing, info, by_id[number]))
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
            size = self.size(info[number], "width", "height")
            if pattern is not None and image is not None:
                cell_id, mask = f"{split}-{number:03d}", masks.get(number)
                listings[number] = Listing(cell_id, split, pattern, intensity, None, image, mask, row.where, size)
        for number in sorted(info.keys() - truth.keys()):
            labels.fault(info[number].where, f"ID {number} is not in {truth_file}", f"add its row to {truth_file}")
        for number in sorted((images.keys() | masks.keys()) - truth.keys() - info.keys()):
            fix = f"add its rows to {info_file} and {truth_file}, or remove the image"
            labels.fault(images.get(number) or masks[number], "image without a label", fix)
        return listings, info.keys() | truth.keys()
