"""The published counts of the ICPR 2012 data set, from the contest's ``cells.csv``: what a complete copy must hold.

The README of the original distribution says 1457 cells; its ``cells.csv`` lists 1455, and those exist.
"""

import re
from collections import Counter
from dataclasses import dataclass

from hep2flow.cells import Intensity, OfficialSplit

PATTERNS = ("homogeneous", "fine_speckled", "coarse_speckled", "centromere", "nucleolar", "cytoplasmatic")


@dataclass(frozen=True)
class Specimen:
    """One slide image of the contest: its number, labels and count of cells."""

    number: int
    split: OfficialSplit
    pattern: str
    intensity: Intensity
    cells: int

    @property
    def specimen_id(self) -> str:
        """As it stands in the Cell table, zero-padded: ``05``."""
        return f"{self.number:02d}"


# Number, p = positive or i = intermediate, count of cells.
_PUBLISHED: dict[OfficialSplit, dict[str, str]] = {
    "train": {
        "homogeneous": "1p61 18p42 5i47",
        "fine_speckled": "9p46 2i48",
        "coarse_speckled": "6p68 11i41",
        "centromere": "3p89 7i56 14i63",
        "nucleolar": "8p56 20i46",
        "cytoplasmatic": "26p34 25i24",
    },
    "test": {
        "homogeneous": "22p119 21i61",
        "fine_speckled": "23p51 15i63",
        "coarse_speckled": "12p49 17p19 10i33",
        "centromere": "13p46 16p38 19i65",
        "nucleolar": "24p73 4i66",
        "cytoplasmatic": "27p38 28i13",
    },
}


SPECIMENS = tuple(
    Specimen(int(number), split, pattern, "positive" if level == "p" else "intermediate", int(cells))
    for split, patterns in _PUBLISHED.items()
    for pattern, texts in patterns.items()
    for number, level, cells in re.findall(r"(\d+)([pi])(\d+)", texts)
)


def cells_by_pattern() -> Counter[tuple[OfficialSplit, str]]:
    """Published count of cells per official split and pattern: 721 training cells, 734 test cells."""
    counts: Counter[tuple[OfficialSplit, str]] = Counter()
    for specimen in SPECIMENS:
        counts[specimen.split, specimen.pattern] += specimen.cells
    return counts
