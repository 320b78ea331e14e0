"""``hep2flow export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Option

from hep2flow.cli import options
from hep2flow.cli.common import connect_to_store


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
