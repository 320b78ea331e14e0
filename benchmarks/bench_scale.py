"""How time per cell and peak memory of ingest, mask and split change from 100,000 cells to a million, 64 x 64 pixels."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from cell_sources import folder_source
from measure import RUNS, Command, hep2flow, machine, median_of, own_store, print_result, store_peak_mib

LIMIT_RATIO = 1.3  # of the time per cell
LIMIT_MIB = 2048.0


def main() -> None:
    """Measure the three stages on each number of cells, each in a store of its own; drawing the cells is not timed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--counts", type=int, nargs="+", default=[100_000, 1_000_000], help="from few to many")
    parser.add_argument("--runs", type=int, default=RUNS)
    arguments = parser.parse_args()
    at = machine()
    with tempfile.TemporaryDirectory(prefix="hep2flow-bench-") as folder:
        sources = {count: folder_source(Path(folder) / str(count), count) for count in arguments.counts}
        runs = [run_once(sources) for _ in range(arguments.runs)]
    ratio, peak = median_of(runs, "ratio"), max(run["peak_mib"] for run in runs)
    few, many = runs[0]["counts"][0]["cells"], runs[0]["counts"][-1]["cells"]
    print_result(
        "scale",
        ratio,
        LIMIT_RATIO,
        ratio <= LIMIT_RATIO and peak <= LIMIT_MIB,
        at,
        f"{many} cells at {median_of(runs, 'milliseconds_per_cell'):.2f} ms each, {ratio:.2f} times those of {few} "
        f"(median of {len(runs)}), in {peak:.0f} MiB",
        limit_mib=LIMIT_MIB,
        peak_mib=peak,
        runs=runs,
    )


def run_once(sources: dict[int, str]) -> dict[str, Any]:
    """Measure the smallest and the largest number of cells, and the ratio of their times per cell."""
    counts = [measure_stages(count, source) for count, source in sources.items()]
    few, many = counts[0]["milliseconds_per_cell"], counts[-1]["milliseconds_per_cell"]
    peak = max(count["peak_mib"] for count in counts)
    result = {"ratio": round(many / few, 3), "milliseconds_per_cell": many, "peak_mib": peak, "counts": counts}
    print(json.dumps(result), file=sys.stderr, flush=True)
    return result


def measure_stages(count: int, source: str) -> dict[str, Any]:
    """Measure ingest, mask and split of so many cells."""
    with own_store():
        load = machine()["load"]
        ingest = hep2flow("ingest", "--source", source, "--format", "folder", "--json")
        mask = hep2flow("mask", "--dataset", ingest.json()["uri"], "--json")
        split = hep2flow("split", "--dataset", mask.json()["uri"], "--json")
        commands: dict[str, Command] = {"ingest": ingest, "mask": mask, "split": split}
        assert sum(split.json()["summary"]["counts"].values()) == count
        return {
            "cells": count,
            "load": load,
            "milliseconds_per_cell": round(1000 * sum(command.seconds for command in commands.values()) / count, 4),
            "cpu_milliseconds_per_cell": round(
                1000 * sum(command.cpu_seconds for command in commands.values()) / count, 4
            ),
            "peak_mib": max(command.peak_mib for command in commands.values()),
            "store_peak_mib": store_peak_mib(),
            "stages": {name: command.figures() for name, command in commands.items()},
        }


if __name__ == "__main__":
    main()
