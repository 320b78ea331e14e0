"""What a data set holds, what is wrong with it, and how it compares with the published counts."""

import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hep2flow.cells import significant_bits
from hep2flow.errors import Fault
from hep2flow.sources.listing import Listing
from hep2flow.sources.published_counts import SPECIMENS, cells_by_pattern
from hep2flow.sources.source import Source


@dataclass(frozen=True)
class Report:
    """Everything ``check`` found. Counts of cells are of those labelled; sizes and depths of those read without fault.

    Attributes:
        counts: (official split or "no split", pattern) -> cells.
        intensities: (split, intensity or "unknown") -> cells.
        specimens: (split, specimen, pattern, intensity) -> cells; empty where specimens are unknown.
        width: "smallest", "median" and "largest", in pixels; None where no cell could be read.
        height: Likewise.
        depths: For example "RGB, 8 bit" -> cells.
        bits: Significant bits of the largest pixel value, None where no cell could be read.
        published_differences: From the published ICPR 2012 counts; empty where they are equal, None for other data sets.
    """

    name: str
    format: str
    synthetic: bool
    cells: int
    masks: int
    counts: dict[tuple[str, str], int]
    intensities: dict[tuple[str, str], int]
    specimens: dict[tuple[str, str, str, str], int]
    given_split: dict[str, int]
    width: dict[str, float] | None
    height: dict[str, float] | None
    depths: dict[str, int]
    bits: int | None
    faults: list[Fault]
    notes: list[str]
    published_differences: list[str] | None

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON-able values."""
        return vars(self) | {
            "counts": _nested(self.counts),
            "intensities": _nested(self.intensities),
            "specimens": [
                {"specimen_id": specimen, "split": split, "pattern": pattern, "intensity": intensity, "cells": count}
                for (split, specimen, pattern, intensity), count in self.specimens.items()
            ],
            "faults": [{"where": fault.where, "what": fault.what, "mend": fault.remedy} for fault in self.faults],
        }

    def render(self) -> str:
        """The report as plain text for a monospaced font."""
        kind = "synthetic, not real cells" if self.synthetic else "as labelled"
        lines = [f"{self.name} ({self.format} format, {kind}): {self.cells} cells, {self.masks} with a mask", ""]
        lines += self._pattern_table()
        if any(intensity != "unknown" for _, intensity in self.intensities):
            lines += ["", *_count_table(("split", "intensity"), self.intensities)]
        if self.specimens:
            lines += ["", *_count_table(("split", "specimen", "pattern", "intensity"), self.specimens)]
        if self.given_split:
            lines += ["", "split that came with it: " + ", ".join(f"{k} {v}" for k, v in self.given_split.items())]
        if self.width and self.height:
            spreads = (("width", self.width), ("height", self.height))
            sizes = [(name, str(s["smallest"]), f"{s['median']:g}", str(s["largest"])) for name, s in spreads]
            lines += ["", *_align([("pixels", "smallest", "median", "largest"), *sizes])]
            lines += ["pixel type: " + ", ".join(f"{kind} ({count})" for kind, count in self.depths.items())]
            lines += [f"significant bits: {self.bits}"]
        if self.published_differences is not None:
            lines += _titled("different from the published counts", self.published_differences)
            lines += [] if self.published_differences else ["", "counts are equal to the published ones"]
        lines += _titled("notes", self.notes)
        lines += _titled(f"{len(self.faults)} fault{'s' * (len(self.faults) != 1)}", self.faults) or ["", "no faults"]
        return "\n".join(lines) + "\n"

    def _pattern_table(self) -> list[str]:
        splits = list(dict.fromkeys(split for split, _ in self.counts))
        patterns = sorted({pattern for _, pattern in self.counts})
        table = [("pattern", *splits, "total")]
        for pattern in patterns:
            row = [self.counts.get((split, pattern), 0) for split in splits]
            table.append((pattern, *map(str, row), str(sum(row))))
        totals = [sum(n for (s, _), n in self.counts.items() if s == split) for split in splits]
        return _align([*table, ("total", *map(str, totals), str(sum(totals)))])


def check(source: Source, progress: Callable[[int, int], None] | None = None) -> Report:
    """Read every image of an opened data set and report what it holds and what is wrong.

    ``progress`` is called with (cells read, cells in all). The caller closes the source.
    """
    faults = list(source.faults)
    widths, heights, depths, max_value = [], [], Counter[str](), 0
    for read in source.cells(faults, progress):
        widths.append(read.cell.width)
        heights.append(read.cell.height)
        depth, colour_type = read.cell.image[24], read.cell.image[25]  # PNG specification, chunk IHDR
        depths[f"{'RGB' if colour_type == 2 else 'grey'}, {depth} bit"] += 1
        max_value = max(max_value, read.max_value)
    listings = source.listings
    # Split, specimen, pattern and intensity of every cell.
    labels = [(c.official_split or "no split", c.specimen_id, c.pattern, c.intensity or "unknown") for c in listings]
    return Report(
        name=source.name,
        format=source.format,
        synthetic=source.synthetic,
        cells=len(listings),
        masks=sum(c.mask is not None for c in listings),
        counts=dict(Counter((split, pattern) for split, _, pattern, _ in labels)),
        intensities=dict(Counter((split, intensity) for split, _, _, intensity in labels)),
        specimens=dict(
            sorted(Counter((s, specimen, p, i) for s, specimen, p, i in labels if specimen is not None).items())
        ),
        given_split=dict(Counter((source.given_split or {}).values())),
        width=_spread(widths),
        height=_spread(heights),
        depths=dict(depths),
        bits=significant_bits(max_value) if widths else None,
        faults=sorted(faults),
        notes=list(source.notes),
        published_differences=published_differences(listings) if source.format == "icpr2012" else None,
    )


def published_differences(listings: Iterable[Listing]) -> list[str]:
    """How the cells differ from the published ICPR 2012 counts, per split and pattern, and per specimen."""
    listings = list(listings)
    here = Counter((c.official_split, c.pattern) for c in listings)
    differences = [
        f"{split} {pattern}: {here[split, pattern]} cells, published {count}"
        for (split, pattern), count in cells_by_pattern().items()
        if here[split, pattern] != count
    ]
    labels = {(c.specimen_id, c.official_split, c.pattern, c.intensity) for c in listings if c.specimen_id is not None}
    if not labels:
        return differences
    counts = Counter(c.specimen_id for c in listings)
    published = {s.specimen_id: s for s in SPECIMENS}
    for specimen_id, specimen in published.items():
        if counts[specimen_id] != specimen.cells:
            differences.append(f"specimen {specimen_id}: {counts[specimen_id]} cells, published {specimen.cells}")
    for specimen_id, split, pattern, intensity in sorted(labels, key=str):
        known = published.get(str(specimen_id))
        if known is None:
            differences.append(f"specimen {specimen_id}: not among the published")
        elif (split, pattern, intensity) != (known.split, known.pattern, known.intensity):
            there = f"{known.split} {known.pattern} {known.intensity}"
            differences.append(f"specimen {specimen_id}: {split} {pattern} {intensity}, published {there}")
    return differences


def _spread(lengths: list[int]) -> dict[str, float] | None:
    if not lengths:
        return None
    return {"smallest": min(lengths), "median": statistics.median(lengths), "largest": max(lengths)}


def _nested(counts: dict[tuple[str, str], int]) -> dict[str, dict[str, int]]:
    """(split, name) -> cells as split -> name -> cells."""
    nested: dict[str, dict[str, int]] = {}
    for (split, name), count in counts.items():
        nested.setdefault(split, {})[name] = count
    return nested


def _count_table(columns: Sequence[str], counts: Mapping[Any, int]) -> list[str]:
    return _align([(*columns, "cells"), *((*key, str(count)) for key, count in counts.items())])


def _align(table: list[tuple[str, ...]]) -> list[str]:
    """Lines of aligned columns, words to the left, numbers to the right; the first row is the header."""
    columns = []
    for column in zip(*table, strict=True):
        width, is_number = max(map(len, column)), all(cell.replace(".", "").isdigit() for cell in column[1:])
        columns.append([cell.rjust(width) if is_number else cell.ljust(width) for cell in column])
    return ["  ".join(row).rstrip() for row in zip(*columns, strict=True)]


def _titled(title: str, items: Iterable[object]) -> list[str]:
    lines = [f"  {item}" for item in items]
    return ["", f"{title}:", *lines] if lines else []
