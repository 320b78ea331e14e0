"""What a reader finds in a data set's labels and names, before any pixel is read."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

from hep2flow.cells import Intensity, OfficialSplit
from hep2flow.errors import Fault
from hep2flow.sources.file_tree import FileTree

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

    Attributes:
        image: Name in the file tree.
        mask: Name in the file tree; None where there is none.
        where: Label file and row, for messages.
        size: As labelled; None where the labels state none.
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
    """What one reader found: the cells, everything wrong with them, and notes for the user."""

    listings: list[Listing] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    given_split: dict[str, Subset] | None = None
    synthetic: bool = False

    def fault(self, where: str, what: str, remedy: str) -> None:
        """Append one fault."""
        self.faults.append(Fault(where, what, remedy))

    def number_files(self, tree: FileTree, form: re.Pattern[str], kind: str, folder: str = "") -> dict[int, str]:
        """Number -> file, for the files below ``folder`` whose name has the form; a repeated number is a fault."""
        files: dict[int, str] = {}
        for name in tree.names:
            if not name.startswith(folder) or (found := form.fullmatch(name, len(folder))) is None:
                continue
            if (first := files.setdefault(int(found[1]), name)) != name:
                self.fault(name, f"the same {kind} as {first}", "remove one of the two")
        return files
