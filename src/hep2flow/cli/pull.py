"""``hep2flow pull``."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hep2flow.cli.common import connect

if TYPE_CHECKING:
    from hep2flow.store.pull import Progress

app = typer.Typer()

PLAIN_STEPS = 10  # lines at most, where there is no terminal


class Only(str, Enum):
    """Parts of a run."""

    report = "report"
    metrics = "metrics"
    checkpoints = "checkpoints"


@app.command()
def pull(
    run_id: str,
    to: Annotated[Path | None, typer.Option("--to", help="Folder; ./RUN_ID when not given.")] = None,
    only: Annotated[Only | None, typer.Option("--only")] = None,
) -> None:
    """Copy a run's report, metrics and checkpoints from the store; again: only what is not there yet."""
    from hep2flow.store.pull import pull as pull_run

    folder = to or Path(run_id)
    with _progress() as progress:
        files, fetched = pull_run(connect(), run_id, folder, only.value if only else None, progress)
    print(f"{len(files)} files in {folder}, {fetched} fetched")


@contextmanager
def _progress() -> Iterator[Progress]:
    """A bar on a terminal, a line for each tenth elsewhere; on standard error."""
    as_json = os.environ.get("HEP2FLOW_LOG") == "json"
    if as_json or not sys.stderr.isatty():
        told = 0

        def tell(name: str, done: int, total: int) -> None:
            nonlocal told
            step = PLAIN_STEPS * done // max(total, 1)
            if step > told:
                told = step
                plain = f"pull: {100 * done // total} % of {total / 1e6:.1f} MB, {name}"
                fields = {"pull": name, "bytes": done, "total": total}
                print(json.dumps(fields) if as_json else plain, file=sys.stderr, flush=True)

        yield tell
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (BarColumn(bar_width=24), DownloadColumn(), TransferSpeedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(stderr=True)) as bars:
        bar = bars.add_task("", total=None)
        yield lambda name, done, total: bars.update(bar, description=name, completed=done, total=total)
