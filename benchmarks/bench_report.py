"""How long the report of a finished run takes, and how large its page is: two models, 1,455 cells."""

from __future__ import annotations

import argparse

from measure import MEBIBYTE, hep2flow, machine, own_store, print_result

from hep2flow.store import layout
from hep2flow.store.open_store import open_store

LIMIT_SECONDS = 20.0
LIMIT_PAGE_MIB = 8.0
RUN = "measured"


def main() -> None:
    """Measure ``hep2flow report`` on the full synthetic twin; the run before it, whose trainings are short, is not timed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--updates", type=int, default=8, help="of each training")
    updates = parser.parse_args().updates
    with own_store() as folder:
        twin = str(folder / "twin")
        hep2flow("data", "synth", twin)
        hep2flow("run", "--source", twin, "--profile", "laptop", f"--set=train.max_updates={updates}", "--run-id", RUN)
        at = machine()
        made = hep2flow("report", "--run", RUN)
        page = round(open_store().size(f"{layout.report_prefix(RUN)}/index.html") / MEBIBYTE, 2)
    print_result(
        "report",
        made.seconds,
        LIMIT_SECONDS,
        made.seconds <= LIMIT_SECONDS and page <= LIMIT_PAGE_MIB,
        at,
        f"{made.seconds:.1f} s for a page of {page:.2f} MiB",
        page_mib=page,
        limit_page_mib=LIMIT_PAGE_MIB,
        **made.figures(),
    )


if __name__ == "__main__":
    main()
