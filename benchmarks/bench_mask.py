"""How long, and in how much memory, masks are derived for 10,876 cells and applied to them."""

from __future__ import annotations

from cell_sources import i3a_source
from measure import hep2flow, machine, own_store, print_result, store_peak_mib

LIMIT_SECONDS = 60.0
LIMIT_MIB = 1536.0


def main() -> None:
    """Measure one ``hep2flow mask`` of a data set without masks; its ingest is not timed."""
    with own_store() as folder:
        source, kind = i3a_source(folder)
        dataset = hep2flow("ingest", "--source", source, "--format", "i3a", "--json").json()["uri"]
        at = machine()
        mask = hep2flow("mask", "--dataset", dataset, "--json")
        derived = mask.json()["summary"]["derived"]
        print_result(
            "mask",
            mask.seconds,
            LIMIT_SECONDS,
            mask.seconds <= LIMIT_SECONDS and mask.peak_mib <= LIMIT_MIB,
            at,
            f"{derived} masks derived in {mask.seconds:.1f} s and {mask.peak_mib:.0f} MiB",
            limit_mib=LIMIT_MIB,
            derived=derived,
            source=kind,
            store_peak_mib=store_peak_mib(),
            **mask.figures(),
        )


if __name__ == "__main__":
    main()
