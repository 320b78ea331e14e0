"""How long, and in how much memory, 10,876 cells become a data set in a fresh store."""

from __future__ import annotations

from cell_sources import i3a_source
from measure import hep2flow, machine, own_store, print_result, store_peak_mib

LIMIT_SECONDS = 30.0
LIMIT_MIB = 1536.0


def main() -> None:
    """Measure one ``hep2flow ingest``, the start of the store included."""
    with own_store() as folder:
        source, kind = i3a_source(folder)
        at = machine()
        ingest = hep2flow("ingest", "--source", source, "--format", "i3a", "--json")
        count = ingest.json()["summary"]["cells"]
        print_result(
            "ingest",
            ingest.seconds,
            LIMIT_SECONDS,
            ingest.seconds <= LIMIT_SECONDS and ingest.peak_mib <= LIMIT_MIB,
            at,
            f"{count} cells in {ingest.seconds:.1f} s and {ingest.peak_mib:.0f} MiB",
            limit_mib=LIMIT_MIB,
            cells=count,
            source=kind,
            store_peak_mib=store_peak_mib(),
            **ingest.figures(),
        )


if __name__ == "__main__":
    main()
