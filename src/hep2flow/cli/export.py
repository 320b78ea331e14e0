"""``hep2flow export``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from hep2flow.cli.common import connect
from hep2flow.cli.options import ModelOption, RunOption

app = typer.Typer()


@app.command()
def export(
    run: RunOption,
    onnx: Annotated[Path, typer.Option("--onnx", metavar="FILE", help="The ONNX file to write.")],
    model: ModelOption = None,
) -> None:
    """Write a finished run's network as an ONNX file, held against torch; labels and preprocessing are in its metadata."""
    from hep2flow.stages.export import export as stage

    difference = stage(connect(), run, model, onnx, lambda text: print(text, file=sys.stderr))
    print(f"{onnx}: probabilities are torch's to {difference:.1e}")
