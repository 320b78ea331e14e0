"""``hep2flow pull``."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from typer import Option

from hep2flow.cli.common import connect_to_store

if TYPE_CHECKING:
    from hep2flow.store.pull import Progress

PLAIN_LINES = 10  # at most, where there is no terminal


def pull(
    run_id: str,
    to: Annotated[Path | None, Option(help="Folder; ./RUN_ID when not given.")] = None,
    only: Literal["report", "metrics", "checkpoints"] | None = None,
) -> None:
    """Copy a run's report, metrics and checkpoints from the store; again: only what is not there yet."""
    from hep2flow.store.pull import pull as pull_run

    folder = to or Path(run_id)
    with _progress() as progress:
        files, fetched = pull_run(connect_to_store(), run_id, folder, only, progress)
    print(f"{len(files)} files in {folder}, {fetched} fetched")


@contextmanager
def _progress() -> Iterator[Progress]:
    """Show a bar on a terminal, a line for each tenth elsewhere; on standard error."""
    as_json = os.environ.get("HEP2FLOW_LOG") == "json"
    if as_json or not sys.stderr.isatty():
        tenths = 0

        def print_tenths(name: str, done: int, total: int) -> None:
            nonlocal tenths
            if (reached := PLAIN_LINES * done // max(total, 1)) > tenths:
                tenths = reached
                plain = f"pull: {100 * done // total} % of {total / 1e6:.1f} MB, {name}"
                fields = {"pull": name, "bytes": done, "total": total}
                print(json.dumps(fields) if as_json else plain, file=sys.stderr, flush=True)

        yield print_tenths
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (BarColumn(bar_width=24), DownloadColumn(), TransferSpeedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(stderr=True)) as bars:
        bar = bars.add_task("", total=None)
        yield lambda name, done, total: bars.update(bar, description=name, completed=done, total=total)
