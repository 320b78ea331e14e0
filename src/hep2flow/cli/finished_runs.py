"""``hep2flow predict``, ``export`` and ``pull``: what is done with a finished run."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from typer import Argument, Option

from hep2flow.cli import options
from hep2flow.cli.common import connect_to_store, progress_counter

if TYPE_CHECKING:
    from hep2flow.store.pull import Progress

PLAIN_LINES = 10  # at most, where there is no terminal


def predict(
    images: Annotated[list[str], Argument(metavar="IMAGE|DIR…", help="Images, folders or archives of them.")],
    run: options.RunOption,
    model: options.ModelOption = None,
    format: Annotated[options.Format, Option(help="folder: any images; recognised when not given.")] = "auto",
    mask: Annotated[
        str | None, Option(help="The image's mask, or a folder of masks; NAME_mask.png beside it if not.")
    ] = None,
    tta: Annotated[Literal["none", "dihedral"] | None, Option(help="As the run evaluates when not given.")] = None,
    specimen: Annotated[
        bool, Option("--specimen", help="One row per specimen (folder): what most of its cells are.")
    ] = False,
    abstain_below: Annotated[float, Option(metavar="P", min=0, max=1, help="Say abstain below this confidence.")] = 0.0,
) -> None:
    """Classify images by a finished run's network; CSV with probabilities on standard output."""
    from hep2flow.reporting.formatting import RESEARCH_ONLY
    from hep2flow.stages.predict import mark_abstentions, specimen_votes
    from hep2flow.stages.predict import predict as stage
    from hep2flow.stages.unlabelled_images import open_images
    from hep2flow.store.outage import log_to_stderr

    store, progress = connect_to_store(), progress_counter("predict")
    with open_images(images, format, mask) as source:
        table = stage(store, run, source, model=model, tta=tta, log=log_to_stderr, progress=progress)
    rows = specimen_votes(table) if specimen else table.drop(columns="specimen")
    log_to_stderr(RESEARCH_ONLY)
    mark_abstentions(rows, abstain_below).to_csv(sys.stdout, index=False, float_format="%.8f", lineterminator="\n")


def export(
    run: options.RunOption,
    onnx: Annotated[Path, Option(metavar="FILE", help="The ONNX file to write.")],
    model: options.ModelOption = None,
) -> None:
    """Write a finished run's network as ONNX, compared with torch's output; labels and preprocessing in its metadata."""
    from hep2flow.stages.trained_models import export as stage
    from hep2flow.store.outage import log_to_stderr

    difference = stage(connect_to_store(), run, model, onnx, log_to_stderr)
    print(f"{onnx}: probabilities are torch's to {difference:.1e}")


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
