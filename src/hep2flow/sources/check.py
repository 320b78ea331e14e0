"""What a data set holds, what is wrong with it, and how it compares with the published counts."""

import statistics
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from hep2flow.cells import significant_bits
from hep2flow.errors import Fault
from hep2flow.sources.listing import Listing
from hep2flow.sources.published_counts import SPECIMENS, cells_by_pattern
from hep2flow.sources.source import Source


def check(source: Source, progress: Callable[[int, int], None] | None = None) -> dict[str, Any]:
    """Read every image of an opened data set and report what it holds and what is wrong, as JSON-able values.

    Counts of cells are of those labelled; sizes, depths and bits of those read without fault, None where there are none.
    ``published_differences`` are from the ICPR 2012 counts: empty where equal, None for other data sets. ``progress`` is
    called with (cells read, cells in all). The caller closes the source.
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
    specimens = Counter((s, specimen, p, i) for s, specimen, p, i in labels if specimen is not None)
    return {
        "name": source.name,
        "format": source.format,
        "synthetic": source.synthetic,
        "cells": len(listings),
        "masks": sum(c.mask is not None for c in listings),
        "counts": _nested_counts((split, pattern) for split, _, pattern, _ in labels),
        "intensities": _nested_counts((split, intensity) for split, _, _, intensity in labels),
        "specimens": [
            {"specimen_id": specimen, "split": split, "pattern": pattern, "intensity": intensity, "cells": count}
            for (split, specimen, pattern, intensity), count in sorted(specimens.items())
        ],
        "given_split": dict(Counter((source.given_split or {}).values())),
        "width": _spread(widths),
        "height": _spread(heights),
        "depths": dict(depths),
        "bits": significant_bits(max_value) if widths else None,
        "faults": [{"where": fault.where, "what": fault.what, "mend": fault.remedy} for fault in sorted(faults)],
        "notes": list(source.notes),
        "published_differences": published_differences(listings) if source.format == "icpr2012" else None,
    }


def render(report: dict[str, Any]) -> str:
    """A report of :func:`check` as plain text for a monospaced font."""
    kind = "synthetic, not real cells" if report["synthetic"] else "as labelled"
    head = f"{report['name']} ({report['format']} format, {kind})"
    lines = [f"{head}: {report['cells']} cells, {report['masks']} with a mask", "", *_pattern_table(report["counts"])]
    intensities = [(split, *item) for split, counts in report["intensities"].items() for item in counts.items()]
    if any(intensity != "unknown" for _, intensity, _ in intensities):
        lines += ["", *_align([("split", "intensity", "cells"), *intensities])]
    if report["specimens"]:
        columns = ("split", "specimen_id", "pattern", "intensity", "cells")
        rows = [tuple(specimen[column] for column in columns) for specimen in report["specimens"]]
        lines += ["", *_align([("split", "specimen", *columns[2:]), *rows])]
    if report["given_split"]:
        lines += ["", "split that came with it: " + ", ".join(f"{k} {v}" for k, v in report["given_split"].items())]
    if report["bits"]:
        spreads = [(name, report[name]) for name in ("width", "height")]
        sizes = [(name, s["smallest"], f"{s['median']:g}", s["largest"]) for name, s in spreads]
        lines += ["", *_align([("pixels", "smallest", "median", "largest"), *sizes])]
        lines += ["pixel type: " + ", ".join(f"{kind} ({count})" for kind, count in report["depths"].items())]
        lines += [f"significant bits: {report['bits']}"]
    if (differences := report["published_differences"]) is not None:
        lines += _titled("different from the published counts", differences)
        lines += [] if differences else ["", "counts are equal to the published ones"]
    lines += _titled("notes", report["notes"])
    faults = [str(Fault(*fault.values())) for fault in report["faults"]]
    lines += _titled(f"{len(faults)} fault{'s' * (len(faults) != 1)}", faults) or ["", "no faults"]
    return "\n".join(lines) + "\n"


def _pattern_table(counts: dict[str, dict[str, int]]) -> list[str]:
    rows = []
    for pattern in sorted(set().union(*counts.values())):
        cells = [of_split.get(pattern, 0) for of_split in counts.values()]
        rows.append((pattern, *cells, sum(cells)))
    totals = [sum(of_split.values()) for of_split in counts.values()]
    return _align([("pattern", *counts, "total"), *rows, ("total", *totals, sum(totals))])


def published_differences(listings: list[Listing]) -> list[str]:
    """How the cells differ from the published ICPR 2012 counts, per split and pattern, and per specimen."""
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
    wrong = [(name, s.cells) for name, s in published.items() if counts[name] != s.cells]
    differences += [f"specimen {name}: {counts[name]} cells, published {cells}" for name, cells in wrong]
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


def _nested_counts(labels: Iterable[tuple[str, str]]) -> dict[str, dict[str, int]]:
    """Split -> name -> cells, from the (split, name) of every cell."""
    nested: dict[str, dict[str, int]] = {}
    for (split, name), count in Counter(labels).items():
        nested.setdefault(split, {})[name] = count
    return nested


def _align(table: Iterable[tuple[object, ...]]) -> list[str]:
    """Lines of aligned columns, words to the left, numbers to the right; the first row is the header."""
    columns = []
    for values in zip(*table, strict=True):
        column = [str(value) for value in values]
        width, is_number = max(map(len, column)), all(cell.replace(".", "").isdigit() for cell in column[1:])
        columns.append([cell.rjust(width) if is_number else cell.ljust(width) for cell in column])
    return ["  ".join(row).rstrip() for row in zip(*columns, strict=True)]


def _titled(title: str, items: Iterable[str]) -> list[str]:
    lines = [f"  {item}" for item in items]
    return ["", f"{title}:", *lines] if lines else []
