"""What both forms of ICPR 2012 have in common: ``cells.csv``, the only map from the contest's cells to specimens."""

from dataclasses import dataclass, replace

from hep2flow.cells import OfficialSplit
from hep2flow.sources.csv_labels import LabelReader, Row, Vocabulary
from hep2flow.sources.listing import LabelledSize, Listing

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
_SPLITS: dict[str, OfficialSplit] = {"train": "train", "training": "train", "test": "test"}


@dataclass(frozen=True)
class CellRow(Row):
    """One checked row of cells.csv."""

    split: OfficialSplit
    contest_id: int
    specimen: int
    original_id: int


@dataclass(frozen=True)
class Icpr2012Reader(LabelReader):
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

    def with_specimen(self, listing: Listing, intensity_where: str, cell: CellRow) -> Listing:
        """The listing with its specimen; a fault where cells.csv contradicts the cell's other label files."""
        pattern = self.patterns.read(cell, "Cell_class", self.labels.faults)
        intensity = self.intensity(cell, "Intensity")
        size = self.size(cell, "Cell_width", "Cell_height")
        for kind, here, where, there in (
            ("pattern", listing.pattern, listing.where, pattern),
            ("intensity", listing.intensity, intensity_where, intensity),
            ("size", listing.size, listing.size and listing.size.where, size),
        ):
            if here is not None and there is not None and here != there:
                what = f"{kind} {there} contradicts {here} in {where}"
                self.labels.fault(cell.where, what, "correct one of the two")
        return replace(listing, specimen_id=f"{cell.specimen:02d}")

    def size(self, row: Row, *columns: str) -> LabelledSize | None:
        """The size that a row states in two columns, or None and a fault."""
        width, height = (self.number(row, column) for column in columns)
        return None if width is None or height is None else LabelledSize(width, height, row.where)
