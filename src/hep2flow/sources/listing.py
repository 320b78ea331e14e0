"""What a reader finds in a data set's labels and names, before any pixel is read."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from hep2flow.cells import Intensity, OfficialSplit
from hep2flow.errors import Fault

Subset = Literal["train", "val", "test"]


@dataclass(frozen=True)
class LabelledSize:
    """Width and height of a cell in pixels as a label file states them, and where."""

    width: int
    height: int
    where: str


@dataclass(frozen=True, slots=True)  # there are millions at a time
class Listing:
    """One labelled cell before its pixels are read.

    image, mask: names inside the file tree; mask is None where there is none
    where:       label file and row, for messages
    size:        what the labels say of it, None where they are silent
    """

    cell_id: str
    official_split: OfficialSplit | None
    pattern: str
    intensity: Intensity | None
    specimen_id: str | None
    image: str
    mask: str | None
    where: str
    size: LabelledSize | None = None


@dataclass
class Labels:
    """What one reader found: the cells, everything wrong with them, and remarks worth telling."""

    listings: list[Listing] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    given_split: dict[str, Subset] | None = None
    synthetic: bool = False

    def fault(self, where: str, what: str, mend: str) -> None:
        """Append one fault."""
        self.faults.append(Fault(where, what, mend))
