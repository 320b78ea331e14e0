"""How time per cell and peak memory of ingest, mask and split change from 100,000 cells to a million, 64 x 64 pixels."""

from __future__ import annotations

import argparse
from typing import Any

from cells import folder_source
from measure import Command, hep2flow, machine, own_store, store_peak_mib, tell

LIMIT_RATIO = 1.3  # of the time per cell
LIMIT_MIB = 2048.0


def main() -> None:
    """The three stages on each number of cells, each number in a store of its own; drawing the cells is not timed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--counts", type=int, nargs="+", default=[100_000, 1_000_000], help="from few to many")
    counts = parser.parse_args().counts
    at = machine()
    measured = [stages(count) for count in counts]
    few, many = measured[0], measured[-1]
    ratio = round(many["milliseconds_per_cell"] / few["milliseconds_per_cell"], 3)
    peak = max(one["peak_mib"] for one in measured)
    tell(
        "scale",
        ratio,
        LIMIT_RATIO,
        ratio <= LIMIT_RATIO and peak <= LIMIT_MIB,
        at,
        f"{many['cells']} cells at {many['milliseconds_per_cell']:.2f} ms each, {ratio:.2f} times those of {few['cells']}, "
        f"in {peak:.0f} MiB",
        limit_mib=LIMIT_MIB,
        peak_mib=peak,
        counts=measured,
    )


def stages(count: int) -> dict[str, Any]:
    """What ingest, mask and split of so many cells took."""
    with own_store() as folder:
        source, load = folder_source(folder, count), machine()["load"]
        ingest = hep2flow("ingest", "--source", source, "--format", "folder", "--json")
        mask = hep2flow("mask", "--dataset", ingest.json()["uri"], "--json")
        split = hep2flow("split", "--dataset", mask.json()["uri"], "--json")
        done: dict[str, Command] = {"ingest": ingest, "mask": mask, "split": split}
        assert sum(split.json()["summary"]["counts"].values()) == count
        return {
            "cells": count,
            "load": load,
            "milliseconds_per_cell": round(1000 * sum(one.seconds for one in done.values()) / count, 4),
            "cpu_milliseconds_per_cell": round(1000 * sum(one.cpu_seconds for one in done.values()) / count, 4),
            "peak_mib": max(one.peak_mib for one in done.values()),
            "store_peak_mib": store_peak_mib(),
            "stages": {name: one.figures() for name, one in done.items()},
        }


if __name__ == "__main__":
    main()
