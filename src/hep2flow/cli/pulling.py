"""``hep2flow pull``."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from hep2flow.cli.common import connect

app = typer.Typer()


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
    """Copy a run's report, metrics and checkpoints from the store."""
    from hep2flow.store.pull import pull as pull_run

    folder = to or Path(run_id)
    written = pull_run(connect(), run_id, folder, only.value if only else None)
    print(f"{len(written)} files in {folder}")
